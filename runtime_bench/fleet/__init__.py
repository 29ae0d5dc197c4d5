"""Benches behind a Dask scheduler."""
