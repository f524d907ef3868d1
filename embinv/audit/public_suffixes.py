"""Which names can be hosts: the public suffix list as it lies inside tldextract, of embinv[audit]. No network is used.

tldextract fetches a newer list unless it is told of none; a report must not tell the world that it is being made.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from embinv.data.dumps.base import MissingLibrary

if TYPE_CHECKING:
    from tldextract import TLDExtract


@lru_cache(maxsize=1)
def bundled_list() -> "TLDExtract":
    """The list that was installed, read once.

    Raises:
        MissingLibrary: tldextract is not installed.
    """
    try:
        from tldextract import TLDExtract
    except ImportError as error:
        raise MissingLibrary("personal data is recognised with Presidio: pip install 'embinv[audit]'") from error
    return TLDExtract(suffix_list_urls=(), cache_dir=None)


def suffix_labels(host: str) -> int:
    """How many labels of a host's name are its public suffix: 2 of shop.example.co.uk; 0 if it is no such name."""
    found = bundled_list()(host)
    return found.suffix.count(".") + 1 if found.fqdn else 0
