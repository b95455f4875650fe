"""Read and write images, surfaces, tables and JSON, and write files completely or not at all.

This package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for
PyTorch's import.
"""
