"""The requests to S3 as tests see and hurt them."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient  # type: ignore[import-untyped]

from object_stores.buckets import Bucket

WRITES = {"PutObject", "DeleteObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}
READS = {"GetObject", "HeadObject", "ListObjectsV2"}


@contextmanager
def watched(before: Callable[[str], None], after: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """Calls functions around every request to S3."""
    original = AioBaseClient._make_api_call

    async def request(self: AioBaseClient, name: str, parameters: Any) -> Any:
        before(name)
        answer = await original(self, name, parameters)
        after(name)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AioBaseClient, "_make_api_call", request)
        yield


@contextmanager
def free_requests(bucket: Bucket, number: int) -> Iterator[None]:
    """After so many requests the server looks at who asks, and it knows nobody."""
    _set_free_requests(bucket, b"%d" % number)
    try:
        yield
    finally:
        _set_free_requests(bucket, b"inf")


def _set_free_requests(bucket: Bucket, number: bytes) -> None:
    request = urllib.request.Request(f"{bucket.endpoint}/moto-api/reset-auth", number, {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).close()
