"""Folder to deploy a model from: the file, what a runtime must have, samples of code, proof."""
