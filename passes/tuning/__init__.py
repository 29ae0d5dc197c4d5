"""Choice of the fastest among equivalent graphs and session options, by measurement."""
