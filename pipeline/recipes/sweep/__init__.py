"""Runs a recipe with every combination of some settings, and compares the results in one table.

grid (checked as a whole) → running → worth.
"""
