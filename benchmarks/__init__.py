"""Measurements against peers and limits; each a command that prints a table. Not shipped."""
