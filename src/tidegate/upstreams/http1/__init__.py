"""An upstream over HTTP/1.1: a pool of connections, each with one call at a time."""
