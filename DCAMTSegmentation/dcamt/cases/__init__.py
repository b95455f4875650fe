"""Find, pair, list and check cases and labels, and suggest a recipe for them.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its import.
"""
