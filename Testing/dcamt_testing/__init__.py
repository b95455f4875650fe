"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

Tests inside Slicer do not use modules that import pytest or torch at module level, because Slicer has no pytest, and
these tests must not import torch.
"""
