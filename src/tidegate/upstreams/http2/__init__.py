"""An upstream behind HTTP/2: many calls on each connection. Needs the package h2."""
