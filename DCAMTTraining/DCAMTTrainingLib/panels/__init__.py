"""The sections of the panel of DCAMT Training, and its dialogs."""
