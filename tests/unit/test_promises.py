"""The list of promises in the tests' README is whole, and each promise is named by a test that holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PROMISES = [f"I{number}" for number in range(1, 23)]
NAMED = re.compile(r"`((?:\w+/)+\w+\.py)`")


def rows() -> dict[str, str]:
    """Each promise's row of the table, by its number."""
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in re.finditer(r"^\| (I\d+) .*$", text, re.MULTILINE)}


def test_every_promise_has_its_row() -> None:
    assert list(rows()) == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_held_by_modules_that_are_there_and_one_that_names_it(promise: str) -> None:
    modules = NAMED.findall(rows()[promise])
    assert modules
    texts = [(TESTS / module).read_text(encoding="utf-8") for module in modules]
    assert any(re.search(rf"\b{promise}\b", text) for text in texts)
