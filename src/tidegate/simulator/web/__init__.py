"""HTTP/1.1 for many streams on one core: bytes go from the engine's step straight to sockets."""
