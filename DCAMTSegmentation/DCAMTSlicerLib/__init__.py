"""The library of both Slicer modules: nodes of the scene, child processes, models and installation.

Files of this library must not import torch: the panels open before PyTorch is installed and do not wait for its
import.
"""

from dcamt.io import in_use

in_use.PATIENCE_S = 0.3  # Slicer does not respond during the wait.
