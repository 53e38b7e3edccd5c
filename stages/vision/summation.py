"""Makes MKL sum in the same order for any number of threads and rows."""

import os


def fix_summation_order() -> None:
    """Call before torch computes anything in a process: MKL reads the setting only once, even for a logarithm.

    Otherwise tokens of ViT-B differ in the sixth digit between one thread and two; the speed is the same. Keeps a value
    of MKL_CBWR that the user has set.
    """
    import torch

    instructions = torch.backends.cpu.get_cpu_capability()
    if instructions in ("AVX2", "AVX512"):  # MKL supports only these two
        os.environ.setdefault("MKL_CBWR", f"{instructions},STRICT")
