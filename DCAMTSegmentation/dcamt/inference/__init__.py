"""Segment a scan: locate the organs, predict in one pass or in tiles, choose labels and components."""
