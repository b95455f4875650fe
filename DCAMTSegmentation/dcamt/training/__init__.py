"""Train networks: cases in memory, augmented patches, the training loop, checkpoints, ranking and cost estimates."""
