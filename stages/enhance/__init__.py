"""The enhancer learns better maps from the maps of heads and a few masks."""
