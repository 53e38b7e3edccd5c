"""The timm backbone: its weights, what it computes on the way, and the pictures it is given.

What is imported from here asks MKL first to sum in one order for any number of threads and rows. Without it the tokens
of ViT-B differ in the sixth digit between one thread and two; with it they take as long. MKL looks at this before its
first product in a process and never again; whoever has set it keeps what they set.
"""

import os

import torch

_INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()
if _INSTRUCTIONS in ("AVX2", "AVX512"):  # the two for which MKL can
    os.environ.setdefault("MKL_CBWR", f"{_INSTRUCTIONS},STRICT")
