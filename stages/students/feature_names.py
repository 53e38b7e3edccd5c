"""The features of pictures that students read, by name (see features.py)."""

LAST, SEVERAL = "last_tokens", ("tokens", "support_tokens")
PAIR_FIELDS = (*SEVERAL, "keys", "cls_query")
