"""Statistics that know no model: sequential tests, percentiles, change points, verdicts."""
