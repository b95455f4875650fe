"""Find, pair, list and check cases and labels, and suggest a recipe for them.

This package must not import torch: Slicer's panels use this package before PyTorch is installed, and must not wait
until PyTorch is imported.
"""
