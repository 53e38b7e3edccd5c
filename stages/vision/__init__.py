"""The timm backbone: its weights, what it computes on the way, and the pictures it is given."""
