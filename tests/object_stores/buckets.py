"""Buckets of the tests, looked into by a client that shares nothing with fsspec."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from maskmill.manifests.files.place import Place


@dataclass(frozen=True, slots=True)
class Bucket:
    """A fresh bucket, and a client of its own that shares nothing with fsspec."""

    name: str
    client: Any
    endpoint: str

    def url(self, name: str) -> str:
        return f"s3://{self.name}/{name}"

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def uploads(self) -> list[str]:
        """Keys of uploads that were begun and neither completed nor aborted."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def copy(self, prefix: str, to: "Bucket") -> None:
        for key in self.names(f"{prefix}/"):
            to.client.copy_object(Bucket=to.name, Key=key, CopySource={"Bucket": self.name, "Key": key})

    def tree(self, prefix: str) -> dict[str, str]:
        return digests({key.removeprefix(f"{prefix}/"): self.get(key) for key in self.names(f"{prefix}/")})


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """sha256 of every file of an artifact but log and lock."""
    return {
        name: hashlib.sha256(data).hexdigest()
        for name, data in sorted(files.items())
        if name != ".lock" and not name.startswith("log/")
    }


def tree_of(at: Place) -> dict[str, str]:
    return digests({name: at.read(name) for name in at.names()})


def fresh_bucket(endpoint: str) -> Bucket:
    import boto3  # type: ignore[import-untyped]

    made = Bucket(f"bucket-{uuid.uuid4().hex[:12]}", boto3.client("s3"), endpoint)
    made.client.create_bucket(Bucket=made.name)
    return made
