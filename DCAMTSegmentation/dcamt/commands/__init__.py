"""Implement the commands of `dcamt`, a module for each, and what they share: options, console, files of results."""
