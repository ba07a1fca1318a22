"""The domains of tasks, a file each; an axis names its own as `domain`."""
