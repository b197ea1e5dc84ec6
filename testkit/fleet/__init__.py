"""Simulated engines and arrivals in virtual time."""
