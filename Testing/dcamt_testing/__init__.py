"""Helpers for the tests of the engine and of the Slicer modules: synthetic scans, cases, models; child processes.

The tests inside Slicer import them too, so a helper imports pytest or torch only where it needs them.
"""
