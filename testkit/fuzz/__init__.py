"""Search for inputs that break what reads bytes from outside; `./run fuzz` is its command."""
