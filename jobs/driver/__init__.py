"""One process that plans, decides and retries."""
