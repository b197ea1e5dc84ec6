"""A child process that may die: requests that have killed a processor run in it."""
