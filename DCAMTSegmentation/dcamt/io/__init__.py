"""Read and write images, surfaces, tables and JSON. Each file is written completely or not at all.

This package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for
PyTorch's import.
"""
