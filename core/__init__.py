"""Values that all of trimtab shares. Imports no other folder of the project."""
