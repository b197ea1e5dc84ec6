"""Connections of our HTTP servers: how many, how large and how long."""
