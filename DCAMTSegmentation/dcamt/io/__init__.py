"""Read and write image files, one module for each format, and write files atomically.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
