"""Cases to train on: the case list, folder conventions, checks and labels. Imports no torch."""
