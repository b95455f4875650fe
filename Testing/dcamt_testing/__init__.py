"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

Tests inside Slicer, which has no pytest and must not import torch, use only those modules that import neither at their
top.
"""
