"""External merge sort: more pairs than fit in memory, sorted through one temporary file."""
