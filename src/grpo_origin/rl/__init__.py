"""RL with verifiable rewards: TRL's trainers with hooks, one method a file."""
