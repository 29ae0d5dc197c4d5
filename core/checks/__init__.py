"""Checks of a file while it is read: faults that onnxruntime tells badly, or not at all."""
