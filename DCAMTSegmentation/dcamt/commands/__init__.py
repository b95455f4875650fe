"""Implement the commands of `dcamt`, a module for each, and what several use: options, console, paths of results."""
