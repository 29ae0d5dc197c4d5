"""Data as people have them: arrays, pictures, recordings, tables, texts, and their preparation."""
