"""Work on a whole batch: planning, deadlines, finalizing."""
