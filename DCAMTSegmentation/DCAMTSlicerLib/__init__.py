"""The library of both Slicer modules: node bridges, background processes and installation.

Must not import torch: the panels open before PyTorch is installed, and must not wait for its import.
"""
