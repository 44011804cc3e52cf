"""Sequential baselines of the library RecTools, which runs in an environment of its own (numpy < 2)."""
