"""Optimization of photographs: the loop, one photograph's descent, and its optimizers."""
