"""Find, pair, list and check cases and labels, and suggest a recipe for them.

This package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for
PyTorch's import.
"""
