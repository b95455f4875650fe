"""Segment scans and calibrate models."""
