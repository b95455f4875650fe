"""Define the protocol between an application and its worker process, and estimate progress. Imports no torch."""
