"""Other stores of Yjs documents: what `moving.mjs` makes with stock npm packages, a MariaDB, an S3 server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
import pymysql

from tests.interop.yjs_judge import FOLDER, require_npm_packages
from tests.service import free_port

TIMEOUT_S = 60
START_TIMEOUT_S = 60
_DEBIAN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def at_work(operation: str, **options: Any) -> dict[str, Any]:
    """What one operation of moving.mjs comes to."""
    require_npm_packages()
    ended = subprocess.run(
        ["node", "moving.mjs", operation, json.dumps(options)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def states(answer: Mapping[str, Any]) -> dict[str, bytes]:
    """By name, what the editors of moving.mjs had in the end."""
    return {name: base64.b64decode(state) for name, state in answer["states"].items()}


def mariadb_is_there() -> bool:
    return shutil.which("mariadbd", path=_DEBIAN_PATH) is not None


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """A URL of Debian's MariaDB with an empty database, on a socket in a short path; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ydoc-", dir="/tmp"))
    # It refuses to run as root, and of its packages the programs alone are wanted, which bring no account.
    account = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    shutil.chown(folder, account)
    environment = {**os.environ, "PATH": _DEBIAN_PATH}
    where = [f"--datadir={folder / 'data'}", f"--user={account}"]
    install = ["mariadb-install-db", "--no-defaults", *where, "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--skip-test-db"], env=environment, check=True, capture_output=True, timeout=TIMEOUT_S)
    socket = folder / "socket"
    sizes = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]
    served = ["mariadbd", "--no-defaults", *where, f"--socket={socket}", "--skip-networking", *sizes]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(served, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _until_mariadb_answers(socket, server, folder / "log")
        yield f"mysql://root@localhost/store?unix_socket={socket}"
    finally:
        server.terminate()
        server.wait(timeout=TIMEOUT_S)
        log.close()
        shutil.rmtree(folder)


def _until_mariadb_answers(socket: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        assert server.poll() is None, log.read_text(errors="replace")
        try:
            if not socket.exists():
                raise pymysql.OperationalError("it does not listen yet")
            with pymysql.connect(unix_socket=str(socket), user="root") as connection:
                connection.cursor().execute("CREATE DATABASE store")
            return
        except pymysql.OperationalError:
            assert time.monotonic() < deadline_s, log.read_text(errors="replace")
            time.sleep(0.05)


S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def s3(bucket: str) -> Iterator[str]:
    """The endpoint of a server that speaks S3, with an empty bucket."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    serve = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            assert server.poll() is None, "it ended at once"
            try:
                httpx.get(endpoint)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=endpoint, **keys)
        client.create_bucket(Bucket=bucket)
        client.close()
        yield endpoint
    finally:
        server.terminate()
        server.wait(timeout=TIMEOUT_S)
