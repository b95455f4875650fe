"""The library of the module DCAMT Training: task, settings, session, and packages for cases, runs and panels."""
