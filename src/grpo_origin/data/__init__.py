"""What models see: pools, prompt sets, mixtures, and a summary that checks them."""
