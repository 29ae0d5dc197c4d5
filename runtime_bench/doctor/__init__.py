"""Why a model is slow: what onnxruntime really runs, and what keeps it from int8."""
