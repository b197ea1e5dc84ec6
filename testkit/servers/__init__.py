"""Small servers for tests: what stands at the other end of a connection."""
