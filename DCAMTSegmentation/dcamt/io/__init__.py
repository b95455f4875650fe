"""Image files: one module a format, the formats there are, and files written whole or not at all. Imports no torch."""
