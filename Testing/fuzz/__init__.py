"""Commands that feed damaged input to the engine."""
