"""Training cases: the table, lists, checks, and cases of the scene."""
