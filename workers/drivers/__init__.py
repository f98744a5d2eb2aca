"""Implementations of the ports: real machinery, and a simulated rack."""
