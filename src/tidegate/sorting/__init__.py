"""External merge sort."""
