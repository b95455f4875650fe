"""Compute the overlap and distances of a segmentation and a label, and measure segmentations.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
