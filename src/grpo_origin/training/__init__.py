"""Models from scratch: architecture, and the loop of pretraining and SFT."""
