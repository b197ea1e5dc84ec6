"""What a user may ask, one function each: rules and ports, no HTTP."""
