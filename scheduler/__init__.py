"""Decides and remembers: the plan, and what is stored of it."""
