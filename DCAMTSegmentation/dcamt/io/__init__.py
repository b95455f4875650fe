"""Read and write image files, one module for each format, and write files atomically. Imports no torch."""
