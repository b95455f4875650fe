"""Training runs: folders, preflight, start, watch, charts, previews, proposals and models."""
