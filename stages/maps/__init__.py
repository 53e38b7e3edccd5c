"""Soft maps from stored tokens, shared by several stages: CST's maps, kept mass, thresholds, upsampling."""
