"""A command that feeds damaged scans to the engine (`scans.py`)."""
