"""What the HTTP server API can be told (server API §2.1)."""

from __future__ import annotations

from typing import final

import attrs

from broker.values import Secret


@final
@attrs.frozen(kw_only=True)
class HttpApiOptions:
    """The `http_api` section."""

    disabled: bool = False
    external: bool = False
    """On the external listener instead of the internal one."""
    insecure: bool = False
    """For development: no key is asked for."""
    handler_prefix: str = "/api"
    key: Secret = Secret()
    """Empty: every request is answered 401, unless `insecure`."""
    error_mode: str = ""
    """`transport`: errors become HTTP statuses."""
