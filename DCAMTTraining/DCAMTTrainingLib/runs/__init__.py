"""Training runs: task, settings, start, watch, charts and results."""
