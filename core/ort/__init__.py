"""How onnxruntime behaves: sessions, what really runs, saturating sums, memory of a run."""
