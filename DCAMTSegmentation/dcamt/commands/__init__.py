"""One module for each command of `dcamt`: parse options, call the engine, print results."""
