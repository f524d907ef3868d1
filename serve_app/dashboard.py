"""Ray's dashboard as far as a deployment needs it: what runs, and putting a config. No decision is made here."""

from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.exceptions import AuthenticationError

from serve_app.config_check import is_loopback

APPLICATIONS = "/api/serve/applications/"
ANSWER_S = 60.0


class Unreachable(Exception):
    """The dashboard gave no answer, or one that means that it cannot give any just now."""


class Dashboard:
    """Serve's REST API of one cluster.

    Args:
        address: http://host:port of the dashboard.

    Raises:
        ValueError: it is no such address, or a token is to be shown and there is none.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"--address: {address!r} is not the dashboard's; give one such as http://127.0.0.1:8265")
        self.address = address.rstrip("/")
        self.was_put = False  # or may have been
        try:
            # As `serve deploy` does it: RAY_AUTH_MODE, then RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.
            headers = get_auth_headers_if_auth_enabled({})
        except AuthenticationError as error:
            raise ValueError(
                "RAY_AUTH_MODE=token, but there is no token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, "
                "or put the cluster's into ~/.ray/auth_token"
            ) from error
        # A proxy that the environment names is not for loopback.
        self._client = httpx.Client(headers=headers, timeout=ANSWER_S, trust_env=not is_loopback(parts.hostname))

    def __enter__(self) -> "Dashboard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def details(self) -> dict[str, Any]:
        """What Serve runs, as `ServeInstanceDetails`.

        Raises:
            Unreachable: no answer.
            ValueError: the dashboard refuses.
        """
        answer = self._ask("GET")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("applications"), dict):
            raise ValueError(
                f"--address: {self.address} answers, but is not Ray's dashboard; its port is 8265 by default"
            )
        return found

    def put(self, config: dict[str, Any], timeout_s: float) -> None:
        """Makes a config the one to be.

        Raises:
            Unreachable: no answer.
            ValueError: the dashboard refuses it.
        """
        self.was_put = True
        self._ask("PUT", json=config, timeout=max(timeout_s, ANSWER_S))  # the first one starts Serve: seconds

    def _ask(self, method: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, self.address + APPLICATIONS, **options)
        except httpx.TransportError as error:
            raise Unreachable(f"{self.address} does not answer ({error or type(error).__name__})") from error
        if response.status_code in {401, 403}:
            raise ValueError(
                f"the dashboard at {self.address} wants the cluster's token; "
                "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            )
        if response.status_code == 400:
            raise ValueError(response.text)
        if not response.is_success:
            raise Unreachable(f"{self.address} answers {response.status_code}: {response.text}")
        return response
