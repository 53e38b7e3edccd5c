"""Students are trained on a published dataset."""
