"""The family of wake-ups. They may be lost, doubled or late: a poll lies beneath every wait."""
