"""A real S3-compatible server on this machine, reached as a user would: by the environment."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.small_dataset import write_dataset
from builders.small_runs import index, toy
from maskmill.manifests.files.place import Place, place
from object_stores.buckets import Bucket, fresh_bucket

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The endpoint of an S3 server, set in the environment together with credentials."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    endpoint = "http://{}:{}".format(*moto.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        yield endpoint
    moto.stop()


@pytest.fixture
def bucket(server: str) -> Bucket:
    return fresh_bucket(server)


@pytest.fixture(scope="session")
def made(server: str, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """A bucket with ten pictures, their images artifact and a toys artifact. Only read."""
    bucket = fresh_bucket(server)
    root = write_dataset(tmp_path_factory.mktemp("s3") / "pictures")
    for path in sorted(root.rglob("*.png")):
        bucket.put(f"pictures/{path.relative_to(root)}", path.read_bytes())
    index(bucket.url("pictures"), bucket.url("images"))
    toy(bucket.url("images"), bucket.url("toys"))
    return bucket


@pytest.fixture
def pictures(made: Bucket) -> str:
    return made.url("pictures")


@pytest.fixture
def images(made: Bucket) -> str:
    return made.url("images")


@pytest.fixture
def toys(made: Bucket, bucket: Bucket) -> str:
    """A toys artifact in the fresh bucket, to be hurt at will."""
    made.copy("toys", bucket)
    return bucket.url("toys")


@pytest.fixture
def local(tmp_path: Path) -> Place:
    return place(tmp_path / "local")
