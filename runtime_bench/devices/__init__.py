"""Benches on other devices: addresses, transports, the agent on a device, named devices."""
