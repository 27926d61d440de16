"""The command `mlchain`."""
