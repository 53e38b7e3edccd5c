"""Scores of label maps against ground truth, their confidence intervals, and baselines that see no picture."""
