"""Data, networks and other tools that scripts of several rooms use; each room has a link to it."""
