"""Dependency graph of channels: groups of channels that can only be removed together."""
