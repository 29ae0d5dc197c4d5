"""Choosing the integers so that less is lost: bias correction, equalization, rounding."""
