"""The training loop, independent of what is trained: a lesson turns a step into losses.

Batch, random numbers and schedules of a step depend on the seed and the step only, so that a resumed training equals an
uninterrupted one. The whole state is in one checkpoint, written completely before the previous one is removed.
"""
