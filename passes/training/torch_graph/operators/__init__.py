"""Operators of ONNX as functions of torch, a file a kind, and the table of them."""
