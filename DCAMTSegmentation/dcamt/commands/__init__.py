"""What each command of `dcamt` does: options in, the engine called, results printed."""
