"""Reports: documents and results as text, Markdown and HTML; pure functions."""
