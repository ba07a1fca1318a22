"""RL methods, one a file: its name is the method's, and it holds one subclass of `Method`."""
