"""Results as text for people; pure functions."""
