"""A simulated rack: hosts with GPUs, delays and faults, kept in small SQLite files; product code, not a test double."""
