"""Credentials out of text that is kept or shown."""

from __future__ import annotations

import re

# A quote or backslash ends a secret: within JSON text it ends the address.
_CREDENTIALS = re.compile(
    r"""(?<=://)[^/?#\s"'\\]*@ | (?<=[?&])((?:[\w.-]*(?:token|key|secret|signature|password|credential)[\w.-]*|sig)=)[^&\s"'\\]+""",
    re.IGNORECASE | re.VERBOSE,
)


def redact_credentials(text: str) -> str:
    """User and password in addresses, and query parameters that look like secrets, replaced by `***`."""
    return _CREDENTIALS.sub(lambda m: f"{m[1]}***" if m[1] else "***@", text)
