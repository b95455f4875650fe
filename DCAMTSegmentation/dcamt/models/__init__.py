"""Read and write model packages (one .dcamt file each), and list the models on this computer.

The package must not import torch: Slicer's panels use the package before PyTorch is installed, and must not wait while
torch is imported.
"""
