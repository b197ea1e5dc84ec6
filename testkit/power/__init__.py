"""Power loss: a disk that forgets what was not flushed, and the layers that stand on it."""
