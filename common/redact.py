"""Removes credentials from text that is stored or shown."""

from __future__ import annotations

import re

# A quote or a backslash ends a secret: in JSON text it ends the address.
_CREDENTIALS = re.compile(
    r"""
    (?<=://)[^/?#\s"'\\]*@  # user:password@ after the scheme
    | (?<=[?&])  # a parameter of the query
      ((?:[\w.-]*(?:token|key|secret|signature|password|credential)[\w.-]*|sig)=)
      [^&\s"'\\]+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def redact_credentials(text: str) -> str:
    """Replaces user and password in addresses, and query parameters that look like secrets, by `***`."""
    return _CREDENTIALS.sub(lambda match: f"{match[1]}***" if match[1] else "***@", text)
