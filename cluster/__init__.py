"""Running jobs on Ray clusters. Submits the command line; imports neither `nst` nor `jobs`."""
