"""Measuring: contenders side by side, in this process or in workers, and their samples."""
