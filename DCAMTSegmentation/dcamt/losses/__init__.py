"""Compute the losses: supervision, distillation, MMD, contrast, and their weighted sum."""
