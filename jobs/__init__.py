"""Jobs as data, and the drivers that run them."""
