"""Contenders of a comparison: a model here or in a process of its own, a command, a function."""
