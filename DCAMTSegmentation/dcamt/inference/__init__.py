"""Segment scans, calibrate models, and serve an application's requests in the worker process."""
