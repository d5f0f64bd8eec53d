"""One command per claim: `python -m benchmarks.NAME` prints a table and, last, one line of JSON.

Claims are ratios against a baseline measured in the same run, in CPU time, A and B in turn: machines are
shared and noisy.
"""
