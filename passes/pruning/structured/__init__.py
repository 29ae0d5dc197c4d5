"""Which channels to remove at what cost, cutting them, and repairing what reads them."""
