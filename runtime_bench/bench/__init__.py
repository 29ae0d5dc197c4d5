"""The bench that passes and commands use: measure, compare, diagnose, on this machine."""
