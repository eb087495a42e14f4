"""The HTTP carrier of the server API: routes, keys, error modes, and the older single endpoint.

Facts: https://centrifugal.dev/docs/server/server_api#http-api.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Annotated, Any, Final, final
from urllib.parse import parse_qs

import msgspec
import structlog
import trio
from msgspec import Meta, Raw, Struct

from broker.api.messages import BatchCommand, BatchRequest, PublishRequest
from broker.api.methods import BAD_REQUEST, INTERNAL, NOT_FOUND, Api, NotEncodable, ToPublish, error_body
from broker.api.options import HttpApiOptions
from broker.eager import in_order, own_task
from broker.hooks import ApiError
from broker.http1 import Head, Request, response
from broker.hub import EngineUnavailable, PublishResult
from broker.protocol import BrokenJson, read_json, respelled

__all__ = ["HttpApi"]

_log = structlog.get_logger("broker.api")

_STATUSES: Final = {100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 112: 416, 113: 409}
_LEGACY_NUMBERS: Final = {
    0: "publish",
    1: "broadcast",
    2: "unsubscribe",
    3: "disconnect",
    4: "presence",
    5: "presence_stats",
    6: "history",
    7: "history_remove",
    8: "channels",
    9: "info",
    10: "rpc",
    11: "subscribe",
    12: "refresh",
}

_encode = msgspec.json.Encoder().encode
_PUBLISHED: Final = b'{"publish":{}}'
"""In a batch, to a channel without history."""
_EMPTY_RESULT = response(200, b'{"result":{}}')
_FAILURES: Final = (ApiError, EngineUnavailable, BrokenJson, NotEncodable)
"""What a call may raise that is answered."""
_PER_TURN: Final = 500
"""Publications of a batch made before others get a turn: some milliseconds."""

Handler = Callable[[Request], bytes | Awaitable[bytes]]
Reader = tuple[Callable[[bytes], Any], Callable[[bytes], bytes]]
"""What reads a text, and what spells it anew where that does not know its keys: for `read_json`."""


class _LegacyCommand(Struct, forbid_unknown_fields=True):
    """One command of `POST /api`. Without `method` it is a publish, whose `params` may stand beside it."""

    id: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    method: str | int | None = None
    params: Raw = Raw()


@final
class HttpApi:
    """Answers `POST <prefix>/<method>` and `POST <prefix>`."""

    def __init__(self, api: Api, options: HttpApiOptions) -> None:
        self._api = api
        self._node = api.node
        self._counters = api.node.counters
        self._publish_times = self._counters.api_commands["http", "publish"]
        self._key = options.key.reveal().encode()
        self._insecure = options.insecure
        self._transport_errors = options.error_mode == "transport"
        self._readers: dict[str, Reader] = {name: _reader(kind) for name, (kind, _) in api.methods.items()}
        self._calls = {name: call for name, (_, call) in api.methods.items()}
        self._publication = self._readers["publish"]
        self._batch, self._legacy = _reader(BatchRequest), _reader(_LegacyCommand)

    @property
    def methods(self) -> list[str]:
        """The names below the prefix."""
        return [*self._api.methods, "batch"]

    # ---- one method per path --------------------------------------------------------------------------------------

    def handler(self, method: str) -> Handler:
        """What answers calls of one of `methods` that `refuse` let in."""
        if method == "publish":
            return self._publish
        if method == "batch":
            return self._answer_batch
        return partial(self._answer, method)

    async def _answer(self, method: str, request: Request) -> bytes:
        started = perf_counter()
        try:
            command = read_json(request.body, *self._readers[method])
            result = await self._calls[method](command)
            answer = response(200, _encode({"result": result})) if result else _EMPTY_RESULT
        except _FAILURES as error:
            answer = self._failed(method, request, error)
        self._counters.api_commands["http", method].add(perf_counter() - started)
        return answer

    def _failed(self, method: str, request: Request, error: Exception) -> bytes:
        if isinstance(error, (ApiError, EngineUnavailable)):
            return self._answer_error(request, self._api.failed("http", method, error))
        if isinstance(error, BrokenJson):
            self._counters.api_errors["http", method, "unmarshal"] += 1
            return response(400, b"Bad Request", content_type="text/plain; charset=utf-8")
        self._counters.api_errors["http", method, "marshal"] += 1
        return response(500, b"Internal Server Error", content_type="text/plain; charset=utf-8")

    def _answer_error(self, request: Request, error: ApiError) -> bytes:
        if self._transport_errors or request.head.headers.get(b"x-centrifugo-error-mode") == b"transport":
            status = _STATUSES.get(error.code, 500)
            return response(status, _encode({"code": error.code, "message": error.message}))
        return response(200, _encode(error_body(error)))

    # ---- publications: without a coroutine where nothing has to wait -----------------------------------------------

    def _publish(self, request: Request) -> bytes | Awaitable[bytes]:
        started = perf_counter()
        try:
            what = self._api.publication(read_json(request.body, *self._publication))
        except _FAILURES as error:
            answer = self._failed("publish", request, error)
        else:
            result = self._node.publish_in_turn(*what)
            if result is None:
                return self._publish_later(request, what, started)
            answer = _published(result)
        self._publish_times.add(perf_counter() - started)
        return answer

    async def _publish_later(self, request: Request, what: ToPublish, started: float) -> bytes:
        try:
            answer = _published(await self._node.publish(*what))
        except EngineUnavailable as error:
            answer = self._failed("publish", request, error)
        self._publish_times.add(perf_counter() - started)
        return answer

    def _answer_batch(self, request: Request) -> bytes | Awaitable[bytes]:
        started = perf_counter()
        try:
            commands = read_json(request.body, *self._batch).commands or []
        except BrokenJson as error:
            answer = self._failed("batch", request, error)
        else:
            replies: list[bytes] = []
            at = self._publish_some(commands, 0, replies)
            if at < len(commands):
                return self._answer_batch_later(request, commands, at, replies, started)
            answer = _replies(replies)
        self._counters.api_commands["http", "batch"].add(perf_counter() - started)
        return answer

    async def _answer_batch_later(
        self, request: Request, commands: list[BatchCommand | None], at: int, replies: list[bytes], started: float
    ) -> bytes:
        # publications in a row are asked for one after another and waited for together: an engine keeps their order;
        # what `parallel` allows beyond that is not made use of
        try:
            while at < len(commands):
                if at and at % _PER_TURN == 0:
                    await own_task()
                    await trio.lowlevel.checkpoint()
                done = self._publish_some(commands, at, replies)
                if done == at:
                    run = _publications(commands[at : at + _PER_TURN - at % _PER_TURN])
                    if run:
                        replies += await in_order(map(self._publish_one, run))
                        done += len(run)
                    else:
                        replies.append(_encode(await self._batched(commands[at])))
                        done += 1
                at = done
            answer = _replies(replies)
        except NotEncodable as error:
            answer = self._failed("batch", request, error)
        self._counters.api_commands["http", "batch"].add(perf_counter() - started)
        return answer

    async def _publish_one(self, request: PublishRequest) -> bytes:
        try:
            result = await self._node.publish(*self._api.publication(request))
        except (ApiError, EngineUnavailable) as error:
            return _encode(error_body(self._api.failed("http", "publish", error)))
        return _batched_position(result)

    def _publish_some(self, commands: list[BatchCommand | None], at: int, replies: list[bytes]) -> int:
        """Publish from `at` on, up to another command, or one that may have to wait, or until others should get a
        turn. What goes to one channel leaves together. Returns where it stopped."""
        publication, publish = self._api.publication, self._node.publish_nowait
        with self._node.together():
            for command in commands[at : at + _PER_TURN - at % _PER_TURN]:
                if command is None or command.publish is None:
                    break
                try:
                    result = publish(*publication(command.publish))
                except ApiError as error:
                    replies.append(_encode(error_body(self._api.failed("http", "publish", error))))
                else:
                    if result is None:
                        break
                    replies.append(_batched_position(result))
                at += 1
        return at

    async def _batched(self, command: BatchCommand | None) -> dict[str, Any]:
        if command is None:
            return error_body(ApiError(*BAD_REQUEST))
        for method in self._api.methods:
            request = getattr(command, method)
            if request is not None:
                try:
                    return {method: await self._api.call("http", method, request)}
                except ApiError as error:
                    return error_body(error)
        return error_body(ApiError(*NOT_FOUND))

    # ---- one path for all -----------------------------------------------------------------------------------------

    async def handle_legacy(self, request: Request) -> bytes:
        """`POST /api`: one or many commands `{"id", "method", "params"}`, or `{"channel", "data"}` to publish."""
        try:
            texts = _split(request.body)
            commands = [(text, command, self._method(command)) for text, command in map(self._read_legacy, texts)]
        except (BrokenJson, RecursionError, ValueError):
            commands = []
        if not commands:
            return response(400, b"Bad Request", content_type="text/plain; charset=utf-8")
        replies = [_encode(await self._legacy_reply(*command)) for command in commands]
        return response(200, b"\n".join(replies))

    def _read_legacy(self, text: bytes) -> tuple[bytes, _LegacyCommand]:
        return text, read_json(text, *self._legacy)

    def _method(self, command: _LegacyCommand) -> str:
        """A method by name in any case, by its old number, or `publish`.

        Raises:
            ValueError: no method has ever had this name; an unknown number is an error of its own command only.
        """
        name = command.method
        if isinstance(name, int):
            return _LEGACY_NUMBERS.get(name, "")
        name = (name or "publish").lower()
        if name not in self._readers:
            raise ValueError(name)
        return name

    async def _legacy_reply(self, text: bytes, command: _LegacyCommand, method: str) -> dict[str, Any]:
        reply: dict[str, Any] = {"id": command.id} if command.id else {}
        if method not in self._readers:
            return reply | error_body(ApiError(*NOT_FOUND))
        params = bytes(command.params)
        if not params:
            params = text if command.method is None else b"{}"
        try:
            request = read_json(params, *self._readers[method])
        except BrokenJson:
            return reply | error_body(ApiError(*BAD_REQUEST))
        try:
            return reply | {"result": await self._api.call("http", method, request)}
        except ApiError as error:
            return reply | error_body(error)
        except NotEncodable:
            return reply | error_body(ApiError(*INTERNAL))

    # ---- keys -----------------------------------------------------------------------------------------------------

    def refuse(self, head: Head) -> bytes | None:
        """401 for a request without the key."""
        if self._insecure or self._authorized(head):
            return None
        return response(401, close=True)

    def _authorized(self, head: Head) -> bool:
        """`X-API-Key`, else `Authorization: apikey KEY`, else `?api_key=`; compared in constant time."""
        if not self._key:
            _log.error("no http_api.key is set: every API call is refused")
            return False
        headers = head.headers
        given = headers.get(b"x-api-key", b"")
        if not given:
            parts = headers.get(b"authorization", b"").split()
            if len(parts) == 2 and parts[0].lower() == b"apikey":
                given = parts[1]
        if given and hmac.compare_digest(given, self._key):
            return True
        if not head.query:
            return False
        asked = parse_qs(head.query).get("api_key", [""])[0]
        return hmac.compare_digest(asked.encode(), self._key)


def _reader(kind: type[Struct]) -> Reader:
    return msgspec.json.Decoder(kind).decode, respelled(kind)


def _published(result: PublishResult) -> bytes:
    return response(200, b'{"result":%b}' % _position(result)) if result.position.offset else _EMPTY_RESULT


def _batched_position(result: PublishResult) -> bytes:
    return b'{"publish":%b}' % _position(result) if result.position.offset else _PUBLISHED


def _publications(commands: list[BatchCommand | None]) -> list[PublishRequest]:
    """Those that `commands` begin with."""
    publications: list[PublishRequest] = []
    for command in commands:
        if command is None or command.publish is None:
            break
        publications.append(command.publish)
    return publications


def _position(result: PublishResult) -> bytes:
    position = result.position
    return b'{"offset":%d,"epoch":%b}' % (position.offset, _encode(position.epoch)) if position.offset else b"{}"


def _replies(replies: list[bytes]) -> bytes:
    return response(200, b'{"replies":[%b]}' % b",".join(replies))


def _split(body: bytes) -> list[bytes]:
    """The JSON texts of a body in which they follow each other, with or without line breaks."""
    text = body.decode()
    decoder = json.JSONDecoder()
    texts: list[bytes] = []
    at = 0
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at == len(text):
            return texts
        _, end = decoder.raw_decode(text, at)
        texts.append(text[at:end].encode())
        at = end
