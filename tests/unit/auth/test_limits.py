"""Token buckets: what is kept for a burst, what is waited for, and which addresses share one."""

from __future__ import annotations

import pytest

from ydoc_store.auth.limits import ADDRESSES_MAX, REST_S_MIN, Addresses, Allowance, Bucket, Limit
from ydoc_store.settings import Settings


def settings(**overrides: object) -> Settings:
    return Settings.load({"limit_burst_s": 2, **overrides})


def test_a_bucket_keeps_a_burst_and_says_when_its_debt_is_paid() -> None:
    bucket = Bucket(10, 2, 0.0)
    assert [bucket.take(1, 0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(5, 0.0) == 0.5
    assert not bucket.holds(1, 0.5)
    assert bucket.holds(1, 0.7)
    # However long nothing came, no more than a burst is kept.
    assert bucket.take(25, 1_000.0) == 0.5


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [("connection_messages", [1] * 21), ("connection_bytes", [1_000, 1_100])],
)
def test_a_connection_that_brings_too_much_rests_and_the_limit_is_named(limit: Limit, sizes: list[int]) -> None:
    bit: list[Limit] = []
    here = settings(connection_messages_per_s=10, connection_bytes_per_s=1_000)
    allowance = Allowance(here, None, bit.append, 0.0)
    rests = [allowance.take(size, 0.0) for size in sizes]
    assert rests[:-1] == [0.0] * (len(sizes) - 1)
    assert rests[-1] >= REST_S_MIN
    assert bit == [limit]


@pytest.mark.parametrize(
    ("limit", "overrides"),
    [("address_messages", {"address_messages_per_s": 10}), ("address_bytes", {"address_bytes_per_s": 1_000})],
)
def test_the_connections_of_one_address_share_what_it_may(limit: Limit, overrides: dict[str, int]) -> None:
    bit: list[Limit] = []
    here = settings(**overrides)
    addresses = Addresses(here, is_limited=True, now=lambda: 0.0)
    both = [Allowance(here, addresses.find("203.0.113.7"), bit.append, 0.0) for _ in range(2)]
    other = Allowance(here, addresses.find("203.0.113.8"), bit.append, 0.0)
    assert sum(allowance.take(100, 0.0) == 0.0 for allowance in both for _ in range(11)) == 20
    assert set(bit) == {limit}
    assert other.take(100, 0.0) == 0.0


def test_an_address_of_ipv6_is_its_network_and_one_of_ipv4_is_itself_over_either() -> None:
    addresses = Addresses(settings(), is_limited=True, now=lambda: 0.0)
    assert addresses.find("2001:db8::1") is addresses.find("2001:db8::ffff:2")
    assert addresses.find("2001:db8::1") is not addresses.find("2001:db8:0:1::1")
    assert addresses.find("::ffff:203.0.113.7") is addresses.find("203.0.113.7")
    assert addresses.find("203.0.113.8") is not addresses.find("203.0.113.7")
    assert addresses.find("x" * 65) is addresses.find("x" * 70)


def test_where_no_proxy_is_trusted_no_address_is_limited() -> None:
    assert Addresses(settings(), is_limited=False).find("203.0.113.7") is None
    assert Addresses(settings(), is_limited=True, now=lambda: 0.0).find(None) is None


def test_a_flood_of_addresses_takes_no_more_than_so_much_memory_and_forgets_who_was_seen_least_lately() -> None:
    addresses = Addresses(settings(), is_limited=True, now=lambda: 0.0)
    first, second = addresses.find("first"), addresses.find("second")
    for number in range(ADDRESSES_MAX - 2):
        addresses.find(f"address {number}")
    assert addresses.find("first") is first
    addresses.find("one more")
    assert addresses.find("first") is first
    assert addresses.find("second") is not second
