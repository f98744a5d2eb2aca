"""Converging, decided: from a look to facts, from plan and facts to what a host should look like, to what to ask."""
