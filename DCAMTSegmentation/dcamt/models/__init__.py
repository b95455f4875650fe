"""Read and write model packages (one .dcamt file each), and list the models on this computer.

Must not import torch: Slicer's panels use this package before PyTorch is installed, and without waiting for its
import.
"""
