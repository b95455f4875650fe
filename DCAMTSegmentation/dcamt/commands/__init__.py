"""Implement the commands of `dcamt`: a module for each command, and modules that several commands use."""
