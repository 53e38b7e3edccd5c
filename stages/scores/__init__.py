"""What label maps are worth against ground truth, how sure that is, and what a blind guess would have got."""
