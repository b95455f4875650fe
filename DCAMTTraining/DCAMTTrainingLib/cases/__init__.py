"""The case table of DCAMT Training, its check, its CSV files, and its cases from the scene."""
