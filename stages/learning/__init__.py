"""How anything here is trained. A training is a function of its step: the batch, the random numbers and the schedules
of a step follow from the seed and the step alone, so that one that was stopped goes on as if it had not been. The loop
knows nothing of what is learned: it is given a lesson, which turns a step into losses. All that a step leaves behind is
in one checkpoint, written whole beside the one before it.
"""
