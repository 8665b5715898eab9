"""What the cluster is told."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.configuration import address, quoted, write_configuration
from ydoc_store.embedded.folder import DataFolder

ME = Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), is_other=False)


def test_the_configuration_keeps_the_promise_and_stays_off_the_network(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create(ME)
    write_configuration(folder, ME, tmp_path / "socket")
    lines = (folder.configuration / "postgresql.conf").read_text().splitlines()
    for line in ("fsync = on", "synchronous_commit = on", "listen_addresses = ''", "max_connections = 50"):
        assert line in lines
    rules = (folder.configuration / "pg_hba.conf").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == [
        "local all all peer map=ydoc",
        "local replication all peer map=ydoc",
    ]


def test_only_we_and_root_may_be_the_databases_owner(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create(ME)
    write_configuration(folder, Account("o'brien", 4711, 4711, is_other=True), tmp_path / "socket")
    lines = (folder.configuration / "pg_ident.conf").read_text().splitlines()[1:]
    assert lines == ['ydoc "o\'brien" ydoc', f'ydoc "{pwd.getpwuid(0).pw_name}" ydoc']


def test_a_path_with_quotes_and_backslashes_stays_one_string() -> None:
    assert quoted("it's a\\path") == "'it''s a\\\\path'"


def test_the_address_leads_over_the_socket() -> None:
    assert address(Path("/run/x")) == "postgresql://ydoc@/postgres?host=/run/x"
