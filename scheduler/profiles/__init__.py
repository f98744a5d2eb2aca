"""Host profiles: what each kind of host is made of, as data files, and how they are read."""
