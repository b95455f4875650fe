"""Compute the overlap and distances of a segmentation and a label, and measure segmentations. Imports no torch."""
