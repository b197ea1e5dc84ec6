"""Model servers as the dispatcher sees them: limit, backoff, classification of replies."""
