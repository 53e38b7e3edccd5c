"""Values and help that options of several stages share, in a module that imports nothing heavy."""

from typing import Literal

Fit = Literal["pad", "squash"]  # both keep the whole picture
FitOrCrop = Literal["crop", "pad", "squash"]
Positions = Literal["dino", "timm"]
Side = Literal["largest", "corners"]  # of a cut that counts as the object
Autocast = Literal["off", "bfloat16", "float16"]
Void = Literal["background", "ignore"]  # the meaning of 255 in the ground truth of few-shot episodes
EPISODES = 1000  # in a few-shot fold, as published
Size = tuple[int, int]  # rows and columns

DEVICE_HELP = "Device: cpu, cuda or cuda:NUMBER."
SEED_HELP = "Random seed"
GT_PER_CLASS_HELP = "Learn from N pictures of each class with masks, such as 5"
GT_LIST_HELP = "Learn from the pictures in FILE, one id per line"
WEIGHTS_HELP = (
    "Weights: safetensors, a torch checkpoint of tensors, a checkpoint artifact, or random:SEED; timm's own by default."
)
SIZE_HELP = "View size in pixels, whole patches; the backbone's own by default."
