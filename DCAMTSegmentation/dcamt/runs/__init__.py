"""Represent a training run as a folder: files, lock, state, requests and events.

The package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for that
import.
"""
