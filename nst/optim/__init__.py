"""Descent on one photograph each."""
