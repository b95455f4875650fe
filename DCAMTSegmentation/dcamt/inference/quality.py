"""How thoroughly a scan is segmented; apart, so that the command line's help need not wait for torch."""

from __future__ import annotations

FAST, ACCURATE = "fast", "accurate"
QUALITIES = (FAST, ACCURATE)
"""`fast`: one branch, attending to itself. `accurate`: both, attending to one another."""
