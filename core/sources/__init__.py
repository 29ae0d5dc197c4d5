"""Data as people have them: arrays, pictures, recordings, tables, and their preparation."""
