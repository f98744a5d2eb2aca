"""The HTTP API: an edge that files intents and answers questions. Decides nothing."""
