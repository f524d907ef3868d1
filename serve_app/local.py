"""Serving a checkpoint from inside a running Ray session, for as long as a `with` block lasts.

For the demo and for tests. A service that stays is described in config.yaml and started with `serve run` or
`python -m serve_app.deploy`.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve

from serve_app.app import AppArgs, build_app
from serve_app.gateway import build_gateway
from serve_app.ready import wait_until_ready
from serve_app.settings import GatewayArgs


@contextmanager
def serve_checkpoint(
    args: AppArgs, port: int, host: str = "127.0.0.1", gateway: GatewayArgs | None = None
) -> Iterator[str]:
    """Serves one checkpoint at `<base URL>/invert/<encoder>`.

    Args:
        args: what to serve.
        port: port of the HTTP proxy; 0 takes a free one.
        host: address that it listens on.
        gateway: limits and keys; None takes the defaults, and no access log.

    Yields:
        The base URL, such as http://127.0.0.1:8000, once the endpoint answers.

    Raises:
        ValueError: Ray is not initialised, Serve runs on it already, the port is taken, or the checkpoint is wrong.
        TimeoutError: the endpoint does not answer.
    """
    if not ray.is_initialized():
        raise ValueError("serve_checkpoint needs a Ray session; call ray.init() before it")
    application, door = build_app(args), build_gateway(gateway or GatewayArgs(access_log=None))
    port = _free_port(host, port)
    if serve.status().proxies:
        raise ValueError("Serve already runs on this Ray cluster; deploy to it with `serve deploy` instead")
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        serve.run(application, name=args.encoder, route_prefix=None)
        serve.run(door, name="gateway", route_prefix="/")
        base_url = f"http://{host}:{port}"
        wait_until_ready(base_url)
        yield base_url
    finally:
        serve.shutdown()


def _free_port(host: str, port: int) -> int:
    with socket.socket() as probe:
        # As the proxy does it: a port that a closed connection still lingers on is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"port {port} of {host} cannot be used ({error.strerror}); give another, or 0") from error
        return probe.getsockname()[1]
