"""Passes that remove weights, channels, or distinct values of weights."""
