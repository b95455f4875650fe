"""Represent a training run as a folder: files, lock, state, requests and events. Imports no torch."""
