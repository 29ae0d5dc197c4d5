"""Candidates in the order in which they are tried: int8, pruned, trained, on other engines."""
