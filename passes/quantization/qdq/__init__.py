"""Writing QuantizeLinear and DequantizeLinear pairs as the target's kernels want them."""
