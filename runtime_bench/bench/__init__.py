"""The bench as passes and commands see it: measure, compare, diagnose, on this machine."""
