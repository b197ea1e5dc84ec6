"""A client of any OpenAI-compatible server: what the terminal commands speak to servers with.

It knows OpenAI's public API and nothing of what lies behind it, so that `tidegate files` and
`tidegate batches` serve against Tidegate and strangers alike.
"""
