"""Schedulers of others, set up and measured from outside; nothing of them is part of the product."""
