"""OpenAI's public JSON, and the records that are built from it."""
