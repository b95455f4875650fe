"""Find, list and check the cases to train on, and read their labels. Imports no torch."""
