"""The five parts of DCA-MT's objective, a file a part, and their sum."""
