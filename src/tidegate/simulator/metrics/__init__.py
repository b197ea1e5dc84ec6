"""What vLLM tells about itself: the same families, types, labels and buckets."""
