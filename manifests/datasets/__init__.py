"""Dataset layouts: the options and the reader of each."""
