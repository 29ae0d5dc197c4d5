"""Structured pruning: importance of channels, plan of widths, cut, repair and verification."""
