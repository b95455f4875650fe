"""The library of both Slicer modules: node bridges, background processes and installation. Imports no torch."""
