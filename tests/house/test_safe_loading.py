"""Nothing that is read may run: no pickle in any guise, no shell, no eval. By the syntax tree, not by text."""

import ast
from collections.abc import Iterator

import pytest

from house.sources import Source, full_name, imports, names_of, product, source

EXECUTING_MODULES = {"pickle", "_pickle", "cPickle", "pickle5", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
EXECUTING_CALLS = {
    *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "torch.save", "torch.hub.load"),
    *("pandas.read_pickle", "numpy.lib.format.read_array"),
}
# Keyword → the one value it may be given.
ONLY = {"allow_pickle": False, "weights_only": True, "shell": False}


def executing_faults(file: Source) -> Iterator[str]:
    known = names_of(file)
    for name in imports(file):
        if EXECUTING_MODULES & set(name.split(".")) and not name.startswith("."):
            yield f"{file.path} imports {name}, which runs what it loads"
    for call in file.calls():
        name = full_name(call.func, known)
        if name in EXECUTING_CALLS:
            yield f"{file.path}:{call.lineno} calls {name}"
        if name == "torch.load" and "weights_only" not in {keyword.arg for keyword in call.keywords}:
            yield f"{file.path}:{call.lineno} calls torch.load without saying weights_only=True"
        for keyword in call.keywords:
            if keyword.arg in ONLY and not _is(keyword.value, ONLY[keyword.arg]):
                yield f"{file.path}:{call.lineno} passes {keyword.arg}={ast.unparse(keyword.value)}"


def truncated_faults(file: Source) -> Iterator[str]:
    """Pillow's switch that decodes half a picture to grey, for the whole process; it may be put off only."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assign) and _is(node.value, True):
            yield from (f"{file.path}: {ast.unparse(t)}" for t in node.targets if "LOAD_TRUNCATED" in ast.unparse(t))


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("rule", [executing_faults, truncated_faults])
def test_the_tree_loads_safely(rule):
    assert len(product()) > 20
    assert [fault for file in product() for fault in rule(file)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def late():\n    import cloudpickle",
        "from distributed.protocol import pickle",
        "import shelve",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=trusted)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p)",
        "from torch import load\nload(p)",
        "import torch as t\nt.load(p, weights_only=not safe)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import os\nos.system(line)",
        "eval(text)",
    ],
)
def test_what_could_run_is_seen(text):
    assert list(executing_faults(source("stages/made_up.py", text)))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import torch\ntorch.load(p, weights_only=True)",
        "import yaml\nyaml.safe_load(text)",
        "import subprocess\nsubprocess.run(['ls'], check=True)",
        "model.eval()",
        "'never pickle, allow_pickle=True or shell=True'",
    ],
)
def test_safe_loading_is_not_blamed(text):
    assert list(executing_faults(source("stages/made_up.py", text))) == []


def test_decoding_half_a_picture_is_seen():
    assert list(
        truncated_faults(
            source("manifests/pictures/decoder.py", "from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True")
        )
    )
