"""The names of the features that students read (see features.py)."""

LAST, SEVERAL = "last_tokens", ("tokens", "support_tokens")
PAIR_FIELDS = (*SEVERAL, "keys", "cls_query")
