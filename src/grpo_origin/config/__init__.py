"""Settings: what a run is, read, checked and laid out as a grid; knows nothing of files or training."""
