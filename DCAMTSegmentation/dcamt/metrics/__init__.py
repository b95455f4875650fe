"""Compute the overlap and distances of a segmentation and a label, measure segmentations, and find doubtful places.

The package must not import torch: Slicer's panels use it before PyTorch is installed, and torch loads slowly.
"""
