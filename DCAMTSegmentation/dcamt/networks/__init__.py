"""Define the networks: a V-Net, cross-attention, and the dual V-Net."""
