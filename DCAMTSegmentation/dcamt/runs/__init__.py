"""Represent a training run as a folder: files, lock, state, requests and events.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
