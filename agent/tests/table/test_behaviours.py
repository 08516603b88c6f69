"""docs/behaviours.md names a test for every behaviour, and every test that it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "behaviours.md").read_text(encoding="utf-8")
BEHAVIOURS = re.findall(r"^- \*\*.*?(?=^- |^#|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
NAMED = sorted(set(re.findall(r"`([\w/]+/test_\w+)(?:::(\w+))?`", DOCUMENT)))


@cache
def names_in(module: str) -> frozenset[str]:
    """The functions and classes of a test module, however deep."""
    path = ROOT / ("" if module.startswith("e2e/") else "agent/tests") / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    # a class of tests may also be made by an assignment, as hypothesis has it
    return frozenset(
        names | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.startswith("Test")}
    )


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_a_test_that_is_named_exists(module: str, name: str) -> None:
    assert names_in(module), f"there is no test module {module}"
    assert not name or name in names_in(module), f"{module} has no test {name}"


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda text: text[4:60])
def test_each_behaviour_names_its_tests(behaviour: str) -> None:
    assert re.search(r"`[\w/]+/test_\w+", behaviour), behaviour


def test_the_document_is_read_as_it_is_meant() -> None:
    assert len(BEHAVIOURS) > 40
    assert len(NAMED) > 100
