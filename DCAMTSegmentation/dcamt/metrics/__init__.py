"""Overlap and distances of a segmentation and a label, and measurements of a segmentation. Imports no torch."""
