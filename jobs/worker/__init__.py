"""One process per GPU: photographs in, outcomes out. Knows no cluster."""
