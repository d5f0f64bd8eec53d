"""How a running job talks, and how it is told to stop."""
