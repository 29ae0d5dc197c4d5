"""QuantizeLinear and DequantizeLinear pairs written as the target's kernels need them."""
