"""What the machine is, whether it is quiet enough to measure on, what its providers take."""
