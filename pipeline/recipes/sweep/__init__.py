"""A recipe run with every combination of some settings, and one table of what each is worth.

grid (checked as a whole) → running, foreseen → worth.
"""
