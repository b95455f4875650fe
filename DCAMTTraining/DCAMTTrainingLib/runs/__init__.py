"""The training runs of DCAMT Training."""
