"""Answers about artifacts and machines: status, verify, plan, compare, diff, gc, doctor."""
