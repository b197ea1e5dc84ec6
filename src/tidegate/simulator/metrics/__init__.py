"""vLLM's metrics: the same families, types, labels and buckets."""
