"""What a machine has, whether it computes right, and what to set on it: `nst doctor`."""
