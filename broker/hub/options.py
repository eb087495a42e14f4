"""What a node can be told about itself."""

from __future__ import annotations

from typing import final

import attrs

from broker.values import Duration


@final
@attrs.frozen(kw_only=True)
class NodeOptions:
    """The `node` section."""

    name: str = ""
    """Empty: `<hostname>_<port>`."""
    info_metrics_aggregate_interval: Duration = Duration(60)
