"""Helpers for the tests of engine and modules: made-up scans, cases and models, child processes.

They run in Slicer's Python, too; only those that need pytest or torch import it.
"""
