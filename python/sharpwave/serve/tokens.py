"""Bearer tokens: their form, and the origins that they may be sent to. No token is ever printed."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

from sharpwave import _coerce

TOKEN = "SHARPWAVE_TOKEN"  # noqa: S105 — the name of the variable
ORIGINS = "SHARPWAVE_TOKEN_ORIGIN"


def checked(token: str) -> str:
    """A token without the end of line that files and commands put behind it.

    Raises:
        ValueError, TypeError: it is not a token. The message does not show it.
    """
    if not isinstance(token, str):
        raise TypeError(f"the token must be a string, got {type(token).__name__}")
    token = token.rstrip("\r\n")
    if not token.strip() or not token.isascii() or not token.isprintable():
        raise ValueError("the token must be printable ASCII in one line, and not empty")
    return token


def parsed(url: str) -> SplitResult:
    """The parts of the address of a server.

    Raises:
        ValueError: it is not the address of a server. The message shows no password.
    """
    said = f"url must be like http://127.0.0.1:8808, got {_shown(_coerce.string('url', url))!r}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(said) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{said}: give a secret as token=, not in the url")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or port == 0:
        raise ValueError(said)
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a token is for."""
    parts = parsed(url)
    return parts.scheme, str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)


def of_environment(url: str) -> str | None:
    """``SHARPWAVE_TOKEN``, if ``SHARPWAVE_TOKEN_ORIGIN`` names the origin of this url; else None.

    A url may come from a configuration or a checkpoint that somebody else wrote: the token goes only where the
    environment says.

    Raises:
        ValueError: the token or one of the origins is not valid.
    """
    token = os.environ.get(TOKEN)
    named = os.environ.get(ORIGINS, "").replace(",", " ").split()
    return checked(token) if token and origin(url) in map(origin, named) else None


def _shown(url: str) -> str:
    """Without what stands before an @."""
    before, at, rest = url.rpartition("@")
    return f"{before.partition('//')[0]}//…@{rest}" if at else url
