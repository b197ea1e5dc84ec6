"""Child processes that are restarted when they die, and the pipe that controls them."""
