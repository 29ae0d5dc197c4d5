"""Reports of a search: its folder, budgets, summary and logs."""
