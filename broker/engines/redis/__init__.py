"""Redis, Valkey, and what speaks like them: publications, history and presence shared by many nodes.

This door opens without hiredis: `broker.engines.opening` imports the rest where it is asked for.
"""

from broker.engines.redis.address import Login, Shard, shards_of

__all__ = ["Login", "Shard", "shards_of"]
