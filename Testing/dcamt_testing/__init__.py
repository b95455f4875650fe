"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

Slicer has no pytest and must not import torch. Tests inside Slicer therefore use only the modules that import neither
pytest nor torch at their top.
"""
