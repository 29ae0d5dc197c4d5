"""Weights of a graph: which there are, in what form they are stored, each once."""
