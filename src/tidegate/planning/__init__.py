"""An input file becomes a sorted plan; used by processor, offline runs and sandboxes."""
