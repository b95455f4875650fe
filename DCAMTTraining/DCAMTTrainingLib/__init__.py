"""The library of the module DCAMT Training: task, settings and session, and folders for cases, runs and panels."""
