"""Define the protocol between an application and its worker process, and estimate progress.

The package must not import torch: Slicer's panels use the package before PyTorch is installed, and must not wait for
the import of torch.
"""
