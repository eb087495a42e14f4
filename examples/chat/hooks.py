"""A chat: everything the server decides is in this file, and runs inside the server.

broker --config config.json               # in this folder
python -m http.server 3000                # in another terminal, and open http://localhost:3000/?name=Ada
"""

import time

from broker.hooks import (
    ConnectEvent,
    ConnectResult,
    HookError,
    Hooks,
    PublishEvent,
    PublishResult,
    RpcEvent,
    RpcResult,
    SubscribeEvent,
    SubscribeResult,
)

app = Hooks()


@app.on.connect()
async def connect(event: ConnectEvent) -> ConnectResult:
    """Everybody may come in under a name of their choice. A real application would look at a cookie here."""
    name = str((event.json() or {}).get("name", "")).strip()
    if not 1 <= len(name) <= 30:
        raise HookError(400, "a name has 1 to 30 characters")
    return ConnectResult(user=name, info={"name": name})


@app.on.subscribe("chat:*")
async def subscribe(event: SubscribeEvent) -> SubscribeResult:
    if event.channel == "chat:staff" and event.user != "Grace":
        raise HookError(403, "staff only")
    return SubscribeResult()


@app.on.publish("chat:*")
async def publish(event: PublishEvent) -> PublishResult:
    """What goes out is made here: nobody can write under another name, or at another time."""
    text = str((event.json() or {}).get("text", "")).strip()
    if not text:
        raise HookError(400, "say something")
    return PublishResult(data={"from": event.user, "text": text[:1000], "at": int(time.time())})


@app.on.rpc("clear")
async def clear(event: RpcEvent) -> RpcResult:
    """Forget what was said in a room, and tell everybody who did it."""
    room = "chat:" + str((event.json() or {}).get("room", ""))
    await app.server.history_remove(room)
    await app.server.publish(room, {"from": "", "text": f"{event.user} cleared the room", "at": int(time.time())})
    return RpcResult(data={})
