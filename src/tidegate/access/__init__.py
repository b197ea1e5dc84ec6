"""Who asks: principals, and the ways in which a request proves its principal."""
