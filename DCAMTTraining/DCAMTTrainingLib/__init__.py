"""What the training module is made of: cases, runs in the background, charts, and what comes after."""
