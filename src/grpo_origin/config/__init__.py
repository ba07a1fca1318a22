"""Settings: what a run is, read, checked and laid out as a grid.

The first room: every other one imports from it. Knows nothing of results or training.
"""
