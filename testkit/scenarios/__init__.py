"""Parts of the product put together for tests in virtual time."""
