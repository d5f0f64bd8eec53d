"""Styles tried on a few photographs of a collection before a job is begun: see `nst preview`."""
