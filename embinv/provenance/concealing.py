"""Command lines and settings without the secrets in them, so that they can be kept and shown.

What is masked: passwords and tokens in URIs, values of names that end in password, token, api_key and the like, and
words that look like the tokens of well-known services. What a secret looks like otherwise cannot be known: it belongs
into the environment, and never into a command line, which a list of processes shows to others.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
_NAMES = (
    r"password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|"
    r"account[_-]?key|access[_-]?key[_-]?id|credentials?|signature|sig|auth|authorization|bearer"
)
_SECRET_NAME = re.compile(rf"(?:^|[._\-\s]|ssl)(?:{_NAMES})$", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"((?<![A-Za-z0-9])(?:[\w.\-]*[._\-]|ssl)?(?:{_NAMES})[\"']?\s*[=:]\s*)(?:(?:Bearer|Basic)\s+)?"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s&;,\"'}]+)",
    re.IGNORECASE,
)
_IN_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^:/?#\s@]*):\S*@")  # to the last @: a password may hold one
_ALONE_IN_URI = re.compile(r"(https?://)[^:/?#\s@]+@", re.IGNORECASE)  # a token where a user's name would stand
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE)
_KNOWN = re.compile(  # Hugging Face, OpenAI, Anthropic, AWS, GitHub, Slack, Google, JSON Web Tokens
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_\-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|gh[opsur]_[A-Za-z0-9]{16,}|"
    r"github_pat_\w{16,}|xox[abp]-[\w\-]{8,}|AIza[\w\-]{20,}|ya29\.[\w\-]{16,}|eyJ[\w\-]+\.[\w\-]+\.[\w\-]*)"
)


def concealed(text: str) -> str:
    """A text with its secrets masked."""
    text = _IN_URI.sub(rf"\1:{MASK}@", text)
    text = _ALONE_IN_URI.sub(rf"\1{MASK}@", text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _KNOWN.sub(MASK, text)


def concealed_words(words: Sequence[str]) -> list[str]:
    """The words of a command line, of which a value may stand in the word behind its flag."""
    found: list[str] = []
    secret_follows = False
    for word in words:
        found.append(MASK if secret_follows and not word.startswith("--") else concealed(word))
        secret_follows = word.startswith("-") and "=" not in word and is_secret(word)
    return found


def concealed_tree(tree: Any) -> Any:
    """Settings as JSON has them, with what is secret in them masked."""
    if isinstance(tree, Mapping):
        return {
            str(name): MASK if isinstance(value, str) and is_secret(str(name)) else concealed_tree(value)
            for name, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [concealed_tree(each) for each in tree]
    return concealed(tree) if isinstance(tree, str) else tree


def is_secret(name: str) -> bool:
    """Whether the value of a flag, a setting or a parameter of this name is a secret."""
    return _SECRET_NAME.search(name) is not None
