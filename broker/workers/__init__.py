"""One parent that starts single-core servers on the same addresses, and answers for all of them."""

from broker.workers.cores import worker_count
from broker.workers.parent import serve

__all__ = ["serve", "worker_count"]
