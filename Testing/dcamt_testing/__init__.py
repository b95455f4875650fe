"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

Slicer has no pytest, and tests inside Slicer must not import torch. So tests inside Slicer do not use modules of this
package that import pytest or torch at module level.
"""
