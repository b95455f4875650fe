"""Networks: one V-Net, cross-attention between two, and the two together."""
