"""Queries and edits of an ONNX graph that any folder may use, independent of any method."""
