"""Implement the Python API: functions that segment, train, evaluate and write results.

The package `dcamt` exports the most used functions. The commands of `dcamt` run the same code.
"""
