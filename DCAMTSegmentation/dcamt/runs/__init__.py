"""A training run as a folder: its files, lock, state, requests and events. Imports no torch."""
