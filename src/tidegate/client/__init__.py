"""A client of any OpenAI-compatible server, for `tidegate files` and `tidegate batches`.

It uses OpenAI's public API alone, so it works with servers other than Tidegate as well.
"""
