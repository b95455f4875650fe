"""The library of both Slicer modules: nodes of the scene, child processes, models and installation.

No file of it may import torch: the panels open before PyTorch is installed, and must not wait for its import.
"""
