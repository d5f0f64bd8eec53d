"""After the fact, from the store alone."""
