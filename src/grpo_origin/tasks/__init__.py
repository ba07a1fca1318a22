"""What is asked and what is right: worlds, tasks, the split by hash, tokens."""
