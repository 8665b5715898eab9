"""Every error of the server comes to something on the client's side: an end, or coming back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from ydoc_store import errors as server
from ydoc_store.client import errors


def leaves(tree: type[server.YdocError]) -> Iterator[type[server.YdocError]]:
    for child in tree.__subclasses__():
        if child.__module__ == server.__name__:
            yield child
            yield from leaves(child)


TOLD = [leaf for tree in (server.ClientFault, server.ServerFault) for leaf in leaves(tree)]


@pytest.mark.parametrize("leaf", TOLD, ids=lambda leaf: leaf.__name__)
def test_an_error_of_the_server_means_the_same_as_its_close_code(leaf: type[server.YdocError]) -> None:
    """What closes a stock client for good ends the document here, what has it come back does so here."""
    denied = errors.of_denial("why", leaf.code)
    assert (denied is None) == (errors.of_close(leaf.close_code, "why") is None)
    if issubclass(leaf, server.ServerFault):
        assert denied is None


def test_codes_that_pass_are_codes_of_errors_that_there_are() -> None:
    there_are = {leaf.code for leaf in leaves(server.YdocError)}
    assert there_are >= errors._PASSING | errors._DELETED | errors._EPOCH_CHANGED


def test_a_deadline_is_a_timeout_for_those_who_catch_that() -> None:
    assert issubclass(errors.Unavailable, TimeoutError)
    assert issubclass(errors.Unavailable, errors.ClientError)


@pytest.mark.parametrize(
    "error",
    [
        errors.Refused("for a reason", "forbidden"),
        errors.Deleted("for a reason"),
        errors.EpochChanged("for a reason"),
        errors.Unreadable("for a reason"),
        errors.Unavailable("for a reason"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_leaves_a_process_of_a_pool_as_it_is(error: errors.ClientError) -> None:
    """One that does not breaks the whole pool."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), "for a reason", vars(error))
