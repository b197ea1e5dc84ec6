"""vLLM's KV events over ZMQ: changes of the prefix cache, published to subscribers."""
