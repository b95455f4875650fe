"""Segment scans, calibrate models, and serve the requests to the worker process.

Segmenting locates organs, predicts, chooses labels and components, and estimates doubt.
"""
