"""The command nightshift: an edge that speaks to people."""
