"""A model server without a model: real HTTP, made-up words, and faults on order."""
