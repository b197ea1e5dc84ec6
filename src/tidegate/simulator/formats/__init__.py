"""How answers are written down: one file for each endpoint of the API."""
