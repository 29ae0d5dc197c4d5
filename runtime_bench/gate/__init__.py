"""Budgets held against measurements: files of budgets, verdicts, reports, history."""
