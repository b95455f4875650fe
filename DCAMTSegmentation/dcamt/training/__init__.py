"""Training: cases in memory, patches drawn from them, the loop, and the run folder that it can resume from."""
