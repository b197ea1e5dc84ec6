"""One suite for each family of back-ends, in plain asserts: every back-end passes it."""
