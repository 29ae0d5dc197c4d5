"""Statistics without models: sequential tests, percentiles, verdicts."""
