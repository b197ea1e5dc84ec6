"""The family of ledgers: the one place that decides ownership and truth."""
