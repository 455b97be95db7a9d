"""Measurements beside peers, in one run and on one machine: `python -m benchmarks`.

Figures of two programs taken on different days say little, so everything here is
measured side by side and reported as a ratio.  No test asserts a time.
"""
