"""Define the protocol between an application and its worker process, and estimate progress.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
