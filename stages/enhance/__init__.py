"""The enhancer: better maps from the maps of the heads, learned from a few masks."""
