"""Support of a model's nodes by a provider, told from tables with sources, without its device."""
