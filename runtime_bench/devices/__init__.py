"""Benches elsewhere: addresses, transports, the agent on a device, the registry."""
