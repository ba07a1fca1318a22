"""What a model can do, exactly: correct mass, the law it obeys, sampling as a check."""
