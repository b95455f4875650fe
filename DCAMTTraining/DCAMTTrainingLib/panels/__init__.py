"""The sections and dialogs of the panel of DCAMT Training."""
