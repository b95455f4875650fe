"""DCAMT's engine: dual V-Nets that segment scans and learn from unlabelled ones.

It knows nothing of 3D Slicer. The command `dcamt` (`dcamt.cli`) and the Slicer modules stand on it.
"""

__version__ = "0.1.0"
