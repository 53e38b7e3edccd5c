"""The names of the features that students read (see features.py)."""

ONE_BLOCK, SEVERAL = "block_tokens", ("tokens", "support_tokens")
PAIR_FIELDS = (*SEVERAL, "keys", "cls_query")
