"""The timm backbone: its weights, its intermediate tokens, and its input pictures."""
