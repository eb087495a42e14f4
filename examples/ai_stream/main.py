"""Answers that arrive word by word, and survive a reload of the page: one Trio program with the broker inside.

    python main.py                            # in this folder
    python -m http.server 3000                # in another terminal, and open http://localhost:3000/

A page asks by RPC and gets the name of a channel at once. The answer is written into that channel by a task of this
program, not of the call, so it goes on when the page goes away; a page that comes back recovers it from its first word.
"""

import sys
import uuid
from collections.abc import AsyncIterator

import trio

import broker
from broker.hooks import Hooks, RpcEvent, RpcResult

CONFIG = {
    "http_server": {"address": "127.0.0.1"},
    "client": {"allowed_origins": ["http://localhost:3000"], "allow_anonymous_connect_without_token": True},
    "channel": {
        "namespaces": [
            {
                "name": "answers",
                "allow_subscribe_for_anonymous": True,
                "allow_subscribe_for_client": True,
                "history_size": 2000,
                "history_ttl": "10m",
                "force_recovery": True,
            }
        ]
    },
}


async def tokens(prompt: str) -> AsyncIterator[str]:
    """Stands for a model: put the streaming call of yours here."""
    for word in f"You asked: {prompt} That is a good question, and here is a long answer to it.".split():
        await trio.sleep(0.1)
        yield word + " "


async def main(port: int) -> None:
    hooks = Hooks()
    config = CONFIG | {"http_server": {"address": "127.0.0.1", "port": port}}

    async with trio.open_nursery() as answers:

        async def answer(channel: str, prompt: str) -> None:
            async for token in tokens(prompt):
                await hooks.server.publish(channel, {"token": token})
            await hooks.server.publish(channel, {"done": True})

        @hooks.on.rpc("ask")
        async def ask(event: RpcEvent) -> RpcResult:
            channel = f"answers:{uuid.uuid4()}"  # whoever knows the name may read it, so nobody can guess it
            start = (await hooks.server.history(channel)).position
            answers.start_soon(answer, channel, str(event.json()))
            return RpcResult(data={"channel": channel, "epoch": start.epoch, "offset": start.offset})

        async with broker.open_server(config, hooks=hooks):
            print(f"answering on port {port}", flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    except* KeyboardInterrupt:
        pass
