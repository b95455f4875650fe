"""Read and write images, surfaces, tables and JSON, and write files completely or not at all.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
