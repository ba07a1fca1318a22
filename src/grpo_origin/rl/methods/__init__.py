"""RL methods, one a file: the file's name is the method's name, and it holds one subclass of `grpo_origin.method.Method`."""
