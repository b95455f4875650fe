"""The training cases: table, inspection, lists, and what comes from the scene."""
