"""Search behind `optimize`: stages, evidence, cache, and the folder that it writes."""
