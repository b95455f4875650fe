"""The Python API: `dcamt.segment`, `dcamt.train`, `dcamt.evaluate` and `dcamt.read_scan`; see the package `dcamt`.

The commands call these modules.
"""
