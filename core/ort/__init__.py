"""Sessions of onnxruntime and the behaviour of its kernels: fusions, int8 sums, memory."""
