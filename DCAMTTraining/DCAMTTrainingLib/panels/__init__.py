"""The panels and dialogs of DCAMT Training."""
