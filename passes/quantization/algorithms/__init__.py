"""Algorithms that choose integers for less error: bias correction, equalization, rounding."""
