"""Requests to the simulator: bodies, prompts, checks and refusals, as vLLM has them."""
