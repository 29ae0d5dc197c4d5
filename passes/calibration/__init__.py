"""Statistics of the values that a model's tensors take, and ranges of activations from them."""
