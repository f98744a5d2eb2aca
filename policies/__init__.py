"""Policy files: their format, their occurrences in time, check, diff and simulate."""
