"""`python -m grpo_origin`: the command line."""

from grpo_origin.cli import main

main()
