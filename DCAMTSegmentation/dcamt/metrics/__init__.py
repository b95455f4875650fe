"""Compute the overlap and distances of a segmentation and a label, measure segmentations, and find doubtful places.

The package must not import torch: Slicer's panels use the package before PyTorch is installed, and must not wait while
torch is imported.
"""
