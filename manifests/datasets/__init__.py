"""Datasets as others lay them out: what a user says of each layout, and a reader of each."""
