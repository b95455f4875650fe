"""What the tests of the engine and those of the modules share; it runs in Slicer's Python, too."""
