"""One generator for many styles, whose convolutions are modulated by a style."""
