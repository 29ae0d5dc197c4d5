"""Confirmation of what the search chose: on data that nothing was chosen on, and in a fresh run."""
