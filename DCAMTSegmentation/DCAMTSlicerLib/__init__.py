"""What both modules share in Slicer: node bridges, background processes, installation; no torch is imported here."""
