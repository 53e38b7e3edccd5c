"""Commands that report on artifacts and machines: status, verify, plan, compare, diff, gc, doctor."""
