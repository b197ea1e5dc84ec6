"""Lines of open shards to model servers and back."""
