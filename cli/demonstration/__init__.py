"""Two days on one simulated host, on the real processes, at changing speed: what `nightshift demo` runs."""
