"""What Redis does in one step: a publication gets its offset, is kept and is told; presence and its expiry.

Keys and members are Centrifugo's (server API §5.4), so both can work on the same data. One member is ours: `f` beside
a channel's epoch is the run of the server that made it (docs/adr, failover). Where another server, or another run of
it, finds a channel, publications may be lost that subscribers have seen, and their offsets would be given away again:
so a new epoch begins, and positions of the old one are refused. The last argument of each script is that run.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

import attrs

__all__ = [
    "ADD_PRESENCE",
    "ALL",
    "PUBLISH",
    "PUBLISH_ONCE",
    "READ_HISTORY",
    "READ_PRESENCE",
    "READ_PRESENCE_STATS",
    "REMOVE_PRESENCE",
    "Script",
]


@final
@attrs.frozen
class Script:
    """A Lua script, called by its digest."""

    source: bytes
    sha: bytes

    @classmethod
    def of(cls, *parts: str) -> Script:
        source = "\n".join(parts).encode()
        return cls(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


_EPOCH: Final = """
-- The channel's epoch and top offset as `epoch`, `top`; `renewed`: they are to be written. `state` begins with e, s, f.
local function position(state, fresh, run)
    local epoch, top = state[1], tonumber(state[2] or '0')
    if not epoch then return fresh, 0, true, true end
    local made_by = state[3] or ''
    if run ~= '' and made_by ~= '' and made_by ~= run then return fresh, top, true, false end
    return epoch, top, run ~= '' and made_by == '', false
end
"""

PUBLISH: Final = Script.of(
    _EPOCH,
    """
-- KEYS: stream, position, and the result to be remembered, if any.
-- ARGV: payload, size, ttl, pub/sub channel, ttl of the position ('0': for ever), fresh epoch, delta ('1'), version,
-- version epoch, ttl of the result, run.
local stream, meta, result = KEYS[1], KEYS[2], KEYS[3]
local payload, run = ARGV[1], ARGV[11]
if result then
    local known = redis.call('HMGET', result, 'e', 's')
    if known[1] then return {known[2] or '0', known[1], 'idempotency'} end
end
local state = redis.call('HMGET', meta, 'e', 's', 'f', 'v', 've')
local epoch, top, renewed, first = position(state, ARGV[6], run)

local function not_newer(version, known)
    if #version ~= #known then return #version < #known end
    return version <= known
end
local version, version_epoch = ARGV[8], ARGV[9]
if version ~= '0' and state[4] and (version_epoch == '' or version_epoch == state[5])
    and not_newer(version, state[4]) then
    if renewed then redis.call('HSET', meta, 'e', epoch, 's', top, 'f', run) end
    return {top, epoch, 'version'}
end

local base = ''
if first then
    redis.call('DEL', stream)  -- of a position that is forgotten
elseif ARGV[7] == '1' then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if last and last[1] == string.format('%.0f-0', top) then
        for at = 1, #last[2], 2 do
            if last[2][at] == 'd' then base = last[2][at + 1] end
        end
    end
end

-- the stream first: if it refuses, nothing has changed
top = top + 1
local id = string.format('%.0f', top)
local added = redis.pcall('XADD', stream, 'MAXLEN', ARGV[2], id, 'd', payload)
if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    redis.call('DEL', stream)
    redis.call('XADD', stream, 'MAXLEN', ARGV[2], id, 'd', payload)
end
redis.call('EXPIRE', stream, ARGV[3])
if renewed then
    redis.call('HSET', meta, 'e', epoch, 's', id, 'f', run)
else
    redis.call('HSET', meta, 's', id)
end
if version ~= '0' then redis.call('HSET', meta, 'v', version, 've', version_epoch) end
if ARGV[5] ~= '0' then redis.call('EXPIRE', meta, ARGV[5]) end

if ARGV[7] == '1' then
    payload = table.concat({'__d1', id, epoch, #base, base, #payload, payload}, ':')
else
    payload = '__p1:' .. id .. ':' .. epoch .. '__' .. payload
end
redis.call('PUBLISH', ARGV[4], payload)
if result then
    redis.call('HSET', result, 'e', epoch, 's', id)
    redis.call('EXPIRE', result, ARGV[10])
end
return {top, epoch, ''}
""",
)

PUBLISH_ONCE: Final = Script.of(
    """
-- Without history. KEYS: the result to be remembered. ARGV: payload, pub/sub channel, ttl of the result, run.
if redis.call('HEXISTS', KEYS[1], 'e') == 1 then return 1 end
redis.call('HSET', KEYS[1], 'e', '')
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return 0
"""
)

READ_HISTORY: Final = Script.of(
    _EPOCH,
    """
-- KEYS: stream, position. ARGV: command ('' to read only the position), start, stop, most ('' for all), ttl of the
-- position ('0': as it is), fresh epoch, run.
local stream, meta = KEYS[1], KEYS[2]
local epoch, top, renewed, first = position(redis.call('HMGET', meta, 'e', 's', 'f'), ARGV[6], ARGV[7])
if first then redis.call('DEL', stream) end
if renewed then redis.call('HSET', meta, 'e', epoch, 's', top, 'f', ARGV[7]) end
if ARGV[5] ~= '0' then redis.call('EXPIRE', meta, ARGV[5]) end
if ARGV[1] == '' then return {top, epoch} end
if ARGV[4] == '' then return {top, epoch, redis.call(ARGV[1], stream, ARGV[2], ARGV[3])} end
return {top, epoch, redis.call(ARGV[1], stream, ARGV[2], ARGV[3], 'COUNT', ARGV[4])}
""",
)

_PURGE: Final = """
-- Take out what has expired by the server's clock; `fields`: fields of the hash expire by themselves.
local now = tonumber(redis.call('TIME')[1])
local function purge(expiry, hash, fields)
    if fields == '1' then return end
    local gone = redis.call('ZRANGEBYSCORE', expiry, '-inf', now)
    for at = 1, #gone, 1000 do
        redis.call('HDEL', hash, unpack(gone, at, math.min(at + 999, #gone)))
    end
    if #gone > 0 then redis.call('ZREMRANGEBYSCORE', expiry, '-inf', now) end
end
"""

ADD_PRESENCE: Final = Script.of(
    _PURGE,
    """
-- KEYS: expiry, clients, and where users are counted: expiry of users, users.
-- ARGV: client, info, user, ttl, fields expire by themselves ('1'), run.
local ttl, fields = ARGV[4], ARGV[5]
local function keep(expiry, hash, member)
    redis.call('EXPIRE', hash, ttl)
    if fields == '1' then
        redis.call('HEXPIRE', hash, ttl, 'FIELDS', 1, member)
    else
        redis.call('ZADD', expiry, now + ttl, member)
        redis.call('EXPIRE', expiry, ttl)
    end
end
local added = redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
keep(KEYS[1], KEYS[2], ARGV[1])
if KEYS[3] then
    if added == 1 then redis.call('HINCRBY', KEYS[4], ARGV[3], 1) end
    keep(KEYS[3], KEYS[4], ARGV[3])
end
return added
""",
)

REMOVE_PRESENCE: Final = Script.of(
    """
-- KEYS: expiry, clients, and where users are counted: expiry of users, users. ARGV: client, run.
local client = ARGV[1]
local info = redis.call('HGET', KEYS[2], client)
if not info then return 0 end
redis.call('HDEL', KEYS[2], client)
redis.call('ZREM', KEYS[1], client)
if KEYS[3] then
    -- who it was stands in the info: a Protobuf message whose first field is the user, if there is one
    local user = ''
    if string.byte(info, 1) == 10 then
        local size, at, factor = 0, 2, 1
        repeat
            local byte = string.byte(info, at)
            size = size + byte % 128 * factor
            at, factor = at + 1, factor * 128
        until byte < 128
        user = string.sub(info, at, at + size - 1)
    end
    if redis.call('HINCRBY', KEYS[4], user, -1) <= 0 then
        redis.call('HDEL', KEYS[4], user)
        redis.call('ZREM', KEYS[3], user)
    end
end
return 1
"""
)

READ_PRESENCE: Final = Script.of(
    _PURGE,
    """
-- KEYS: expiry, clients. ARGV: fields expire by themselves ('1'), run.
purge(KEYS[1], KEYS[2], ARGV[1])
return redis.call('HGETALL', KEYS[2])
""",
)

READ_PRESENCE_STATS: Final = Script.of(
    _PURGE,
    """
-- KEYS: expiry, clients, expiry of users, users. ARGV: fields expire by themselves ('1'), run.
purge(KEYS[1], KEYS[2], ARGV[1])
purge(KEYS[3], KEYS[4], ARGV[1])
return {redis.call('HLEN', KEYS[2]), redis.call('HLEN', KEYS[4])}
""",
)

ALL: Final = (
    PUBLISH,
    PUBLISH_ONCE,
    READ_HISTORY,
    ADD_PRESENCE,
    REMOVE_PRESENCE,
    READ_PRESENCE,
    READ_PRESENCE_STATS,
)
