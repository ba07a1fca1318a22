"""grpo-origin: can RL post-training take a language model beyond what it was pretrained on?"""

__version__ = "0.2.0"
