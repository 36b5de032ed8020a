"""Evaluation: predictions over a split, intervals, paired statistics, sweeps, latency."""
