"""What values a model's tensors take: statistics of activations, and the ranges found from them."""
