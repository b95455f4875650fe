"""Implement the Python API: segment and train, evaluate, and write results; the package `dcamt` exports the functions.

`dcamt.commands` calls the same functions, so that command and API agree.
"""
