"""Functions are verbs, or the noun that they return; a name means one thing."""

import ast
from collections import defaultdict

from house.sources import product

# Irregular participles that have begun a function's name; all others end in -ed.
_WORDS = """told found kept shown held said seen left meant drawn taken given made known chosen written sent built begun
done gone lost paid standing asked"""
IRREGULAR = set(_WORDS.split())
NOUNS_IN_ED = {"seed", "feed", "need", "embed", "shed", "speed"}
THE_FIELDS_OWN = {"guided_filter", "weighted_sum"}  # a filter and a sum, by the names that they have in papers


def is_participle(name: str) -> bool:
    first = name.strip("_").partition("_")[0]
    return (first.endswith("ed") and first not in NOUNS_IN_ED) or first in IRREGULAR


def test_functions_do_not_begin_with_a_participle() -> None:
    names = [
        f"{file.path}: {node.name}"
        for file in product()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and is_participle(node.name)
        and node.name.strip("_") not in THE_FIELDS_OWN
        and not any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)
    ]
    assert names == []


def test_a_participle_would_be_seen() -> None:
    assert [
        name for name in ("told", "_merged_rows", "seed_all", "merge_rows", "_found", "needs") if is_participle(name)
    ] == [
        "told",
        "_merged_rows",
        "_found",
    ]


def test_a_class_has_a_name_of_its_own() -> None:
    places = defaultdict(list)
    for file in product():
        for node in file.tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(file.path)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
