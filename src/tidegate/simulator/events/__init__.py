"""What the prefix cache holds, told to others as it changes: vLLM's KV events over ZMQ."""
