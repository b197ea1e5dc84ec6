"""An upstream behind HTTP/2: many calls on each connection."""
