"""Define the protocol between an application and its worker process, and estimate progress.

The package must not import torch: Slicer's panels use it before PyTorch is installed, and without waiting for the
import of torch.
"""
