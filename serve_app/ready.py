"""`python -m serve_app.ready URL`: waits until a server answers for all its encoders, and says where to look.

Serve says that a config was submitted, and no more; a model is loaded half a minute later.
"""

import argparse
import os
import sys
import time

import httpx

TIMEOUT_S = 120.0
POLL_S = 0.1


def wait_until_ready(base_url: str, timeout_s: float = TIMEOUT_S) -> None:
    """Returns once GET /readyz answers 200.

    Args:
        base_url: such as http://127.0.0.1:8000.
        timeout_s: how long to wait.

    Raises:
        TimeoutError: it does not; the message has what was seen last.
    """
    deadline, parent = time.monotonic() + timeout_s, os.getppid()
    seen = "no answer"
    with httpx.Client(trust_env=False, timeout=5.0) as client:  # a proxy in the environment is not for loopback
        while time.monotonic() < deadline and os.getppid() == parent:
            try:
                response = client.get(f"{base_url}/readyz")
            except httpx.TransportError as error:
                seen = str(error)
            else:
                if response.is_success:
                    return
                seen = f"status {response.status_code}"
            time.sleep(POLL_S)
    raise TimeoutError(f"{base_url}/readyz is not ready after {timeout_s:.0f} s ({seen})")


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.ready", description="Wait until a server answers for all its encoders."
    )
    parser.add_argument("url", help="such as http://127.0.0.1:8000")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="seconds (default %(default)g)")
    arguments = parser.parse_args(argv)
    try:
        wait_until_ready(arguments.url.rstrip("/"), arguments.timeout)
    except TimeoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"==> ready: open {arguments.url}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
