"""Start of a search: model and data are opened and divided, and what it will take is told."""
