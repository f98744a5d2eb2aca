"""Tests mirror the tree; property, simulation and contract suites stand beside it."""
