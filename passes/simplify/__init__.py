"""Simplification of a graph: constants folded, no-ops dropped, means as pools."""
