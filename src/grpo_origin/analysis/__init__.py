"""From evaluations to verdicts: statistics, claims, tables."""
