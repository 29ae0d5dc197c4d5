"""Questions and edits on an ONNX graph that any room may ask, and that know nothing of a method."""
