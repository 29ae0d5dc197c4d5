"""The machine: its environment, its noise, the nodes that its execution providers run."""
