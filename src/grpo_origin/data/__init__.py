"""What models see: pools, prompt sets, and a summary that checks them."""
