"""W12: clients call an RPC method that a backend answers over HTTP, one call in flight per client.

A server that runs already has to ask a backend about methods of the namespace `backend`, as `broker.bench.local.Asked`
configures it. `µs/call` is CPU of the server, of which the client's side of the connection is a part: W11r says how
much that is.
"""

from __future__ import annotations

from broker.bench.figures import Outcome
from broker.bench.load import Load
from broker.bench.local import RPC_NAMESPACE
from broker.bench.w11_inbound import calls

__all__ = ["rpc"]


def rpc(load: Load) -> Outcome:
    method = f"{RPC_NAMESPACE}:sum"
    outcome = calls(load, lambda _: {"rpc": {"method": method, "data": {"v": [1, 2]}}}, "calls")
    if per_second := outcome.figures.get("calls/CPU-s"):
        outcome.figures["µs/call"] = 1e6 / per_second
    return outcome
