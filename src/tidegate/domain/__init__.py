"""What is true on paper: batches, lines, shards, claims, commits. No I/O, no clock, no asyncio."""
