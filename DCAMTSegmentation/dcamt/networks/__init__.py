"""Define the V-Net, cross-attention and the dual V-Net, and read and write networks as model packages."""
