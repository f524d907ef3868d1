"""The gateway: one application at `/` that speaks HTTP for all encoders.

A Serve YAML names it as `import_path: serve_app.gateway:build_gateway`. It holds no model. Nothing is started here.
"""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client

from serve_app.config_check import is_loopback
from serve_app.encoders import ServedEncoders
from serve_app.ingress import build_ingress
from serve_app.keys import KeyRing
from serve_app.metrics import GatewayMetrics
from serve_app.settings import GatewayArgs

HEAD = "node:__internal_head__"  # a resource that Ray gives the head node, 1 of it
MAX_ONGOING = 4096  # connections of one replica; what they may ask for together is limited in vectors


@serve.deployment(max_constructor_retry_count=1)
@serve.ingress()
class Gateway:
    """One replica of the gateway.

    Args:
        settings: its args.

    Raises:
        ValueError: keys that cannot be read, or an address that is not to be listened on without keys.
    """

    def __init__(self, settings: GatewayArgs) -> None:
        self._settings = settings
        self._keys = KeyRing.open(settings.keys_file, os.environ)
        require_keys(listening_host(), self._keys.required, settings.insecure)
        self._metrics = GatewayMetrics()
        self._encoders = ServedEncoders(self._metrics.retried)

    def __serve_build_asgi_app__(self) -> FastAPI:
        local_only = not self._keys.required and not self._settings.insecure
        return build_ingress(self._encoders, self._settings, self._keys, self._metrics, local_only)


def build_gateway(args: GatewayArgs) -> serve.Application:
    """Describes the gateway.

    Raises:
        ValueError: keys that cannot be read.
    """
    KeyRing.open(args.keys_file, os.environ)
    resources: dict[str, Any] = {"num_cpus": 0}
    if args.on_head:
        resources["resources"] = {HEAD: 0.001}
    return Gateway.options(
        num_replicas=args.replicas, max_ongoing_requests=MAX_ONGOING, ray_actor_options=resources
    ).bind(args)


def require_keys(host: str, keys: bool, insecure: bool) -> None:
    """Refuses to be reachable from elsewhere by everybody.

    Raises:
        ValueError: the address is not this machine's loopback, and there are no keys.
    """
    if keys or insecure or is_loopback(host):
        return
    raise ValueError(
        f"http_options.host is {host}, which others can reach, and there are no API keys; set keys_file (python -m "
        "serve_app.keys add NAME --file keys.txt) or EMBINV_API_KEYS, or host 127.0.0.1, or insecure: true"
    )


def listening_host() -> str:
    """The address that Serve's proxies listen on, as its controller knows it."""
    client = _get_global_client()
    assert client is not None, "a replica of Serve runs beside Serve"
    return str(client.http_config.host)
