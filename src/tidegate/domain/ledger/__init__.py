"""Rules that every ledger applies: pure functions from stored values and a request to new ones."""
