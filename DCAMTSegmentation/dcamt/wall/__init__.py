"""Measure late gadolinium enhancement of the atrial wall (see docs/wall.md)."""
