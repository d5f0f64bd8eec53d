"""Any style in one pass: a network that a style's code tells how to paint."""
