"""DCAMT Training without its doorway: task, settings and session; cases, runs and panels in folders of their own."""
