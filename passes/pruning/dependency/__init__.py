"""Which channels go together: the dependency graph of channels and its groups."""
