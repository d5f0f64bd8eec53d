"""Tests of what a GPU would refuse, wait for and keep, on machines without one."""
