"""What the simulated model answers: its text, its length and its events."""
