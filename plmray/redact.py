"""Keeping secrets out of what is written or shown: passwords in addresses, tokens and keys of the environment."""

from __future__ import annotations

import os
import re

_USERINFO = re.compile(r"(?<=://)[^/?#\s]+@")  # to the last @ before the path: a password may hold one
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|ACCESS_KEY|API_KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 6  # shorter values would blacken ordinary words


def redacted(text: str) -> str:
    """A text without user and password in its addresses, and with the environment's secrets named, not shown."""
    text = _USERINFO.sub("***@", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_NAMES.search(name) and not _is_path(value):
            text = text.replace(value, f"<{name}>")
    return text


def has_secret(address: str) -> bool:
    """Whether an address holds ``user:password@``, or for a web server ``token@``."""
    found = _USERINFO.search(address)
    return found is not None and (":" in found.group() or address.startswith("http"))


def _is_path(value: str) -> bool:
    return value.startswith("/")
