"""What `@hocuspocus/extension-s3` keeps in a bucket: an object a document, `PREFIX` + name + `.bin`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

from ydoc_store.errors import SourceUnreadable
from ydoc_store.sources.source import Found, Opened, Unreadable, missing, stepwise

# As the extension has it where nothing else is configured
PREFIX = "hocuspocus-documents/"
_ENDING = ".bin"


@asynccontextmanager
async def hocuspocus_s3(place: str, endpoint: str | None) -> AsyncIterator[Opened]:
    """The documents under `place`, a bucket or `BUCKET/PREFIX`; an `endpoint` is one that speaks S3 beside Amazon's.

    Region and credentials are found as boto3 finds them: environment, profile, the machine's role.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        missing("boto3", "s3", error)
    bucket, slash, prefix = place.removeprefix("s3://").partition("/")
    # What speaks S3 elsewhere seldom has a host name for each bucket.
    config = Config(s3={"addressing_style": "path" if endpoint else "auto"})
    faults = (BotoCoreError, ClientError)
    try:
        client = boto3.client("s3", endpoint_url=endpoint, config=config)
    except (*faults, ValueError) as error:
        raise SourceUnreadable(f"S3 cannot be asked: {error}") from error
    with closing(client):
        yield _Objects(client, bucket, prefix if slash else PREFIX, faults)


class _Objects:
    def __init__(self, client: Any, bucket: str, prefix: str, faults: tuple[type[Exception], ...]):
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._faults = faults
        self._keys: list[str] = []

    async def total(self) -> int:
        try:
            self._keys = await asyncio.to_thread(self._list)
        except self._faults as error:
            raise SourceUnreadable(f"the bucket {self._bucket} cannot be listed: {error}") from error
        return len(self._keys)

    def _list(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return [key for key in keys if key.endswith(_ENDING)]

    async def documents(self) -> AsyncIterator[Found | Unreadable]:
        if not self._keys:
            await self.total()
        async for item in stepwise(self._objects()):
            yield item

    def _objects(self) -> Iterator[Found | Unreadable]:
        for key in self._keys:
            name = key[len(self._prefix) : -len(_ENDING)]
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
                yield Found(name, [answer["Body"].read()])
            except self._faults as error:
                yield Unreadable(name, str(error))
