"""Credentials in URLs: removed from everything that is stored or shown."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_URL_IN_TEXT = re.compile(r"(?<![A-Za-z0-9+.-])([0-9+.-]*)([A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+)")
"""Begins where a word does: from each letter of a long word its end would be looked for again."""

_START = re.compile(r"(?<![A-Za-z0-9+.-])(?=[A-Za-z][A-Za-z0-9+.-]*://)")

_WITH_PORTS = ("http", "https", "tcp", "tls", "ws", "wss", "ftp", "sftp", "ssh", "postgresql+asyncpg")
"""Schemes whose URLs may hold a port; in those of object stores a colon always begins a secret."""

_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "OJALA_TAP_PASSWORD",
    "OJALA_WEBHOOK",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
    "PREFECT_SERVER_API_AUTH_STRING",
)

_SHORTEST_SECRET = 6
"""Shortest value of such a variable that is looked for in texts."""


def without_credentials(url: str) -> str:
    """A URL without user, password and query; anything else as it is.

    A secret may hold any character, also ``/`` and ``@``: where a URL can be read in two ways, the one that
    keeps less is taken. In chained protocols (``simplecache::s3://...``) every URL is cleaned. Credentials of
    an ``s3://`` URL are set in the environment, unless there are some already.
    """
    return "".join(_clean(part) for part in _START.split(url))


def redact(text: str) -> str:
    """A text without the credentials of the URLs in it and without the secrets of the environment."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _URL_IN_TEXT.sub(lambda match: match[1] + without_credentials(match[2]), text)


def _clean(url: str) -> str:
    match = _URL.fullmatch(url)
    if match is None:
        return url
    scheme, rest = match.groups()
    end = _end_of_credentials(scheme.lower(), rest)
    user, _, password = rest[: max(end, 0)].partition(":")
    if user and password and scheme in ("s3", "s3a"):
        os.environ.setdefault("AWS_ACCESS_KEY_ID", unquote(user))
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", unquote(password))
    return f"{scheme}://{rest[end + 1 :].partition('?')[0]}"


def _end_of_credentials(scheme: str, rest: str) -> int:
    """Index of the ``@`` behind the credentials; -1 where there are none."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if scheme in _WITH_PORTS and "@" in authority:
        return authority.rfind("@")
    host, colon, port = authority.partition(":")
    if not colon:
        return authority.rfind("@")
    if scheme in _WITH_PORTS and port.isdigit() and ("." in host or host == "localhost"):
        return -1
    return rest.rfind("@")
