"""Benches and evaluations behind a Dask scheduler."""
