"""Segment scans, calibrate models, and serve the requests to the worker process."""
