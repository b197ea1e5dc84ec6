"""Structured output: JSON that fits a schema, and text that fits a pattern."""
