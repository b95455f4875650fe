"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

Slicer has no pytest, and tests inside Slicer must not import torch. These tests use only the modules of this package
that import neither pytest nor torch at their top.
"""
