"""The suite goes red for every bug of the design's list, each put into a copy of the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seeded_bugs.seeding import FOLDER, Bug, apply, bugs, catch, check_sound, copy_tree

CHEAP = [bug for bug in bugs() if bug.cheap]
DEAR = [bug for bug in bugs() if not bug.cheap]


def test_every_patch_belongs_to_a_bug_and_applies_to_the_present_tree(tmp_path: Path) -> None:
    assert {bug.patch for bug in bugs()} == set(FOLDER.glob("*.patch"))
    tree = copy_tree(tmp_path)
    assert [complaint for bug in bugs() if (complaint := apply(bug, tree, check=True))] == []


@pytest.mark.parametrize("bug", CHEAP, ids=lambda bug: bug.name)
def test_a_seeded_bug_turns_its_tests_red(bug: Bug) -> None:
    catch(bug)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("bug", DEAR, ids=lambda bug: bug.name)
def test_a_seeded_bug_in_a_statement_turns_its_tests_red(bug: Bug) -> None:
    catch(bug)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_without_a_bug_the_same_tests_are_green() -> None:
    check_sound(bugs())
