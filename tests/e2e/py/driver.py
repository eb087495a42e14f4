"""The official Python SDK as a program: commands come in as JSON lines, results and events go out as JSON lines.

`../sdk.py` drives it, and `js/driver.mjs` speaks the same vocabulary. It runs on asyncio, as the SDK does.
"""

import asyncio
import itertools
import json
import sys
from dataclasses import asdict
from typing import Any

from centrifuge import (
    Client,
    ClientEventHandler,
    DeltaType,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
    UnauthorizedError,
)

clients: dict[str, "Driven"] = {}
wanted: dict[int, asyncio.Future[Any]] = {}
questions = itertools.count(1)
background: set[asyncio.Task[Any]] = set()


def emit(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def ask(event: dict[str, Any]) -> Any:
    """Ask the test for something the SDK wants of the application: a token, a state."""
    question = next(questions)
    wanted[question] = asyncio.get_running_loop().create_future()
    emit({**event, "question": question})
    return await wanted[question]


class Driven:
    """One client of the SDK and what it tells about itself."""

    def __init__(self, client: str, url: str, protobuf: bool, ask_token: bool = False, **options: Any) -> None:
        self.name = client
        self.protobuf = protobuf
        if "data" in options:
            options["data"] = self.encode(options["data"])

        async def token() -> str:
            return await ask({"event": "token_wanted", "client": client})

        self.sdk = Client(
            url,
            events=ClientEvents(self),
            use_protobuf=protobuf,
            get_token=token if ask_token else None,
            timeout=60.0,  # the machine may be busy
            min_reconnect_delay=0.01,
            max_reconnect_delay=0.1,
            proxy=None,
            **options,
        )

    def encode(self, data: Any) -> Any:
        return json.dumps(data, separators=(",", ":")).encode() if self.protobuf else data

    def decode(self, data: Any) -> Any:
        if not self.protobuf or data is None:
            return data
        if not data:
            return None
        try:
            return json.loads(data)
        except ValueError:
            return {"hex": bytes(data).hex()}

    def info(self, info: Any) -> dict[str, Any] | None:
        if info is None:
            return None
        return {
            "client": info.client,
            "user": info.user,
            "conn_info": self.decode(info.conn_info),
            "chan_info": self.decode(info.chan_info),
        }

    def publication(self, pub: Any) -> dict[str, Any]:
        return {
            "data": self.decode(pub.data),
            "offset": pub.offset,
            "tags": dict(pub.tags or {}),
            "info": self.info(pub.info),
        }

    def tell(self, event: str, ctx: Any, **more: Any) -> None:
        line = {"event": event, "client": self.name, **more}
        if hasattr(ctx, "channel"):
            line["channel"] = ctx.channel
        if event == "publication":
            line |= self.publication(ctx.pub)
        elif event in ("join", "leave"):
            line["info"] = self.info(ctx.info)
        elif event == "error":
            line |= {"code": getattr(ctx.error, "code", ctx.code), "reason": str(ctx.error)}
        elif event == "subscribed":
            line |= {name: getattr(ctx, name) for name in ("recoverable", "positioned", "was_recovering", "recovered")}
            line["position"] = asdict(ctx.stream_position) if ctx.stream_position else None
            line["data"] = self.decode(ctx.data)
        elif event == "connected":
            line |= {"client_id": ctx.client, "data": self.decode(ctx.data)}
        elif hasattr(ctx, "code"):
            line |= {"code": ctx.code, "reason": ctx.reason}
        emit(line)

    async def subscribe(
        self,
        channel: str,
        ask_token: bool = False,
        ask_state: bool = False,
        delta: str | None = None,
        **options: Any,
    ) -> None:
        subscription = self.sdk.get_subscription(channel)
        if subscription is None:
            if "data" in options:
                options["data"] = self.encode(options["data"])

            async def token(channel: str) -> str:
                return await ask({"event": "token_wanted", "client": self.name, "channel": channel})

            async def state(channel: str) -> StreamPosition:
                return StreamPosition(**await ask({"event": "state_wanted", "client": self.name, "channel": channel}))

            subscription = self.sdk.new_subscription(
                channel,
                events=SubscriptionEvents(self, channel),
                get_token=token if ask_token else None,
                get_state=state if ask_state else None,
                delta=DeltaType(delta) if delta else None,
                min_resubscribe_delay=0.01,
                **options,
            )
        await subscription.subscribe()


def telling(event: str, **more: Any) -> Any:
    async def handler(self: Any, ctx: Any) -> None:
        self.driven.tell(event, ctx, **more, **self.more)

    return handler


class ClientEvents(ClientEventHandler):
    def __init__(self, driven: Driven) -> None:
        self.driven, self.more = driven, {}

    on_connecting = telling("connecting")
    on_connected = telling("connected")
    on_disconnected = telling("disconnected")
    on_error = telling("error")
    on_subscribing = telling("subscribing", server=True)
    on_subscribed = telling("subscribed", server=True)
    on_unsubscribed = telling("unsubscribed", server=True)
    on_publication = telling("publication", server=True)
    on_join = telling("join", server=True)
    on_leave = telling("leave", server=True)


class SubscriptionEvents(SubscriptionEventHandler):
    def __init__(self, driven: Driven, channel: str) -> None:
        self.driven, self.more = driven, {"channel": channel}

    on_subscribing = telling("subscribing")
    on_unsubscribed = telling("unsubscribed")
    on_publication = telling("publication")
    on_join = telling("join")
    on_leave = telling("leave")
    on_error = telling("error")

    async def on_subscribed(self, ctx: Any) -> None:
        self.driven.tell("subscribed", ctx)


async def operate(op: str, args: dict[str, Any]) -> dict[str, Any]:
    if op == "client":
        clients[args["client"]] = Driven(**args)
        return {}
    if op == "reset":
        for driven in clients.values():
            await driven.sdk.disconnect()
        clients.clear()
        wanted.clear()
        return {}
    if op == "answer":
        future = wanted.pop(args["question"])
        if args.get("refuse"):
            future.set_exception(UnauthorizedError("refused"))
        else:
            future.set_result(args["value"])
        return {}
    driven = clients[args.pop("client")]
    sdk = driven.sdk
    match op:
        case "connect":
            background.add(asyncio.create_task(sdk.connect()))  # returns only when the application has given a token
        case "disconnect":
            await sdk.disconnect()
        case "subscribe":
            await driven.subscribe(**args)
        case "unsubscribe":
            subscription = sdk.get_subscription(args["channel"])
            assert subscription is not None
            await subscription.unsubscribe()
        case "publish":
            data = bytes.fromhex(args["hex"]) if "hex" in args else driven.encode(args["data"])
            await sdk.publish(args["channel"], data)
        case "rpc":
            return {"data": driven.decode((await sdk.rpc(args["method"], driven.encode(args["data"]))).data)}
        case "presence":
            result = await sdk.presence(args["channel"])
            return {"clients": {client: driven.info(info) for client, info in result.clients.items()}}
        case "presence_stats":
            return asdict(await sdk.presence_stats(args["channel"]))
        case "history":
            since = StreamPosition(**args["since"]) if args.get("since") else None
            history = await sdk.history(**{**args, "since": since})
            publications = [driven.publication(pub) for pub in history.publications]
            return {"publications": publications, "offset": history.offset, "epoch": history.epoch}
        case _:
            raise ValueError(f"unknown operation {op}")
    return {}


async def handle(identity: int, op: str, args: dict[str, Any]) -> None:
    try:
        emit({"id": identity, "result": await operate(op, args)})
    except ReplyError as error:
        emit({"id": identity, "error": {"code": error.code, "message": error.message}})
    except Exception as error:
        emit({"id": identity, "error": {"code": None, "message": repr(error)}})


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        command = json.loads(line)
        task = asyncio.create_task(handle(command.pop("id"), command.pop("op"), command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
