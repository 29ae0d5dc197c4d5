"""Values that all of trimtab shares. Imports nothing else of ours."""
