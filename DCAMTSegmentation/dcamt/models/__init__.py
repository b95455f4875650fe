"""Read and write model packages (one .dcamt file each), and list the models on this computer.

This Python package must not import torch: Slicer's panels use it before PyTorch is installed, and torch loads slowly.
"""
