"""Budgets checked against measurements: budget files, verdicts, reports, history."""
