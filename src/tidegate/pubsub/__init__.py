"""The family of wake-ups, which may be lost, repeated or late: every wait also polls."""
