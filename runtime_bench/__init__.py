"""Measuring models against each other on the machine they will run on.

Sampling, statistics, environment, verdict and presentation are five small modules; `compare` and
`measure` are what others call.
"""
