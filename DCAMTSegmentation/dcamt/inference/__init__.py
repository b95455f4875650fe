"""Segment scans: locate organs, predict, choose labels and components, estimate doubt; calibrate and serve models."""
