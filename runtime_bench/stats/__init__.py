"""Statistics without models: sequential tests, percentiles, change points, verdicts."""
