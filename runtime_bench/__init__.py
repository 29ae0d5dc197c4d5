"""Benchmarks of models against each other, on the machine they will run on.

One folder for each subject: `stats` < `machine` < `measure` < `doctor` < `bench` < `gate` <
`devices` < `fleet`; each imports only those before it. `open` opens a bench by the name of a
device.
"""
