"""Represent a training run as a folder: files, lock, state, requests and events.

The package must not import torch: Slicer's panels use the package before PyTorch is installed, and must not wait while
torch is imported.
"""
