"""Read and write model packages (one .dcamt file each), and list models.

The package must not import torch: Slicer's panels use it before PyTorch is installed, and torch loads slowly.
"""
