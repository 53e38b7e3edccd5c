"""Datasets that teams share: push and pull."""
