"""Passes that store or compute in integers, and that choose the layers left float."""
