"""Makes hosts look like the plan says: tasks, converging, and the ports to the machine."""
