"""Weights and arithmetic in 16-bit floating point."""
