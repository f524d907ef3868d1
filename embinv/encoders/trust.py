"""Which encoders may be opened because a file says so: a checkpoint or a data set may be somebody else's.

A config is its user's own word. A recipe that comes with a checkpoint is not, and it can name code to run, a server to
send texts to, and a variable of the environment to send with them.
"""

import ipaddress
import os
from urllib.parse import urlsplit

from embinv.encoders.base import Encoder, open_encoder
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec

TRUSTED = "EMBINV_TRUSTED_ENCODERS"
"""In the environment, by commas: MODEL or MODEL@REVISION whose code may run, base URLs that texts may be sent to."""


def open_told_encoder(spec: EncoderSpec, device: str = "cpu", settings: EncodingSettings | None = None) -> Encoder:
    """The encoder that a checkpoint or a data set names; arguments as in `open_encoder`.

    Raises:
        ValueError: it cannot be opened, or `require_trusted` refuses it.
    """
    require_trusted(spec)
    return open_encoder(spec, device, settings)


def require_trusted(spec: EncoderSpec) -> None:
    """Refuses a recipe that would run code or send texts to another machine, unless its user has said so.

    Raises:
        ValueError: it would; the message says what to set.
    """
    trusted = [name.strip() for name in os.environ.get(TRUSTED, "").split(",")]
    # The revision too: on a hub, anybody may propose changes to a well-known model, each a revision of it.
    code = spec.model if spec.revision is None else f"{spec.model}@{spec.revision}"
    if spec.trust_remote_code and code not in trusted:
        raise ValueError(
            f"encoder.trust_remote_code: this checkpoint or data set asks to run code from {code}; if you trust "
            f"that code, set {TRUSTED}={code}"
        )
    own_key = EncoderSpec.model_fields["api_key_env"].default
    if spec.kind != "openai" or spec.base_url is None:
        return
    if spec.api_key_env != own_key or not (_is_here(spec.base_url) or spec.base_url in trusted):
        if spec.api_key_env != own_key:
            raise ValueError(
                f"encoder.api_key_env: this checkpoint or data set would send the variable {spec.api_key_env} to "
                f"{spec.base_url}; give the key in {own_key}, and encode it anew or change its config.json"
            )
        raise ValueError(
            f"encoder.base_url: this checkpoint or data set would send texts to {spec.base_url}, with the key in "
            f"{spec.api_key_env}; if you trust that server, set {TRUSTED}={spec.base_url}"
        )


def _is_here(url: str) -> bool:
    """Whether a URL leads to this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
