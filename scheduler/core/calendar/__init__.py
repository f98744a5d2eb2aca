"""The calendar of a fleet: what is booked when, where a partition is free, and the plan that keeps every promise."""
