"""Model packages (one .dcamt file each) and the store of models on this computer. Imports no torch."""
