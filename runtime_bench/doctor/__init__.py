"""The doctor: diagnosis of what onnxruntime really runs, and what keeps it from int8."""
