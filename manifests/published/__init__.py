"""The published dataset: its schema, its loader, and its versions at a URL."""
