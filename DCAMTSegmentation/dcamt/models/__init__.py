"""Read and write model packages (one .dcamt file each), and list the models on this computer. Imports no torch."""
