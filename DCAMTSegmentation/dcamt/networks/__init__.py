"""Define the V-Net, cross-attention and the dual V-Net, and convert networks from and to model packages."""
