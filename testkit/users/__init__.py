"""Users of the API, for tests."""
