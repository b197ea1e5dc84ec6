"""What every process needs from the real world: time, ids, limits. Given by the wiring."""
