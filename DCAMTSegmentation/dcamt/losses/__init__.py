"""Loss functions: supervision, distillation, MMD, contrast, and the weighted sum of all four."""
