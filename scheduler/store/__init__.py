"""Tables, migrations and the transactions on them, in SQLite or PostgreSQL."""
