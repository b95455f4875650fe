"""The case table of DCAMT Training: rows, check of the cases, CSV files, and cases from the scene."""
