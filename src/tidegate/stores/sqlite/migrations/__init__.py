"""The steps that bring an older ledger file up to date, one script each."""
