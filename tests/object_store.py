"""An S3 on loopback (moto's server), and the variables of the environment that lead to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def object_store(*buckets: str) -> Iterator[dict[str, str]]:
    """Runs a server with these empty buckets; gives the variables that a client of it needs."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    s3fs = pytest.importorskip("s3fs")
    import boto3

    server.start()
    s3fs.S3FileSystem.clear_instance_cache()  # that of another test has another address
    try:
        variables = {
            "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id="x",
            aws_secret_access_key="x",
            region_name="us-east-1",
        )
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        client.close()
        yield variables
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
