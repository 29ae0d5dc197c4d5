"""Passes that train: fine-tuning of a graph by gradients, with or without a teacher."""
