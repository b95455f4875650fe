"""Implement the Python API: segment, train, evaluate and write results; the package `dcamt` exports the most used ones.

The commands of `dcamt` run the same code, so that command and API agree.
"""
