"""OpenAI-shaped bytes."""
