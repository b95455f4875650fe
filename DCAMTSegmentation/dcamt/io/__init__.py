"""Read and write images, surfaces, tables and JSON. Each file is written completely or not at all.

This Python package must not import torch: Slicer's panels use it before PyTorch is installed, and torch loads slowly.
"""
