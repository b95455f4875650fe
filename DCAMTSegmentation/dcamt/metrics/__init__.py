"""Compute the overlap and distances of a segmentation and a label, and measure segmentations.

The package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for that
import.
"""
