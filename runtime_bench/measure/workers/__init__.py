"""Processes that load a model or a function and time its runs, and how they are spoken to."""
