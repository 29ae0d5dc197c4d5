"""Passes that store or compute in integers, and the choice of layers that stay float."""
