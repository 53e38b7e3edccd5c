"""Pretraining without labels: views, group masking, heads, teacher targets that do not collapse, and the objectives."""
