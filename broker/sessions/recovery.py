"""Recovery: what a client missed, merged with what was published while it was being read. Pure.

Facts: client protocol §3.6, https://centrifugal.dev/docs/server/history_and_recovery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs

from broker.hub import HistoryPage, patched
from broker.protocol import Filter, Publication, StreamPosition, fossil

__all__ = ["Gap", "Recovered", "merge", "recover_cache", "recover_stream", "with_patches"]


class Gap(Exception):
    """What was read and what was published meanwhile do not join: the client has to start over (3010)."""


@final
@attrs.frozen
class Recovered:
    """The answer to a subscribe that recovers: `publications` are the missed ones, oldest first."""

    recovered: bool
    publications: Sequence[Publication]


def recover_stream(page: HistoryPage, since: StreamPosition) -> Recovered:
    """Whether `page`, read from `since` on, holds everything that was missed.

    An empty epoch agrees with any. A page cut by a limit or a trimmed head does not reach from `since` to the top.
    """
    pubs, top = page.publications, page.top
    if since.epoch and since.epoch != top.epoch:
        return Recovered(False, ())
    if not pubs:
        return Recovered(top.offset == since.offset, ())
    whole = pubs[0].offset == since.offset + 1 and pubs[-1].offset == top.offset
    return Recovered(whole, pubs if whole else ())


def recover_cache(page: HistoryPage, since: StreamPosition, wanted: Filter | None) -> Recovered:
    """Only the latest publication counts; `page` is newest first.

    A client that has the latest already gets nothing again, and counts as recovered.
    """
    top = page.top
    same = since.offset > 0 and since.offset == top.offset and since.epoch == top.epoch
    latest = next((pub for pub in page.publications if wanted is None or wanted.matches(pub.tags)), None)
    if latest is None:
        return Recovered(same, ())
    if page.publications[0].offset != top.offset:
        return Recovered(False, ())
    return Recovered(True, () if same else (latest,))


def merge(
    read: Sequence[Publication], top: StreamPosition, collected: Sequence[Publication]
) -> tuple[list[Publication], StreamPosition]:
    """Join what history gave (up to `top`) with what was published meanwhile: in order, each once.

    Raises:
        Gap: an offset between `top` and the end of what was collected is missing.
    """
    pubs = list(read)
    position = top
    for pub in sorted(collected, key=_offset):
        if pub.offset <= position.offset:
            continue
        if pub.offset != position.offset + 1:
            raise Gap
        pubs.append(pub)
        position = StreamPosition(pub.offset, top.epoch)
    return pubs, position


def _offset(pub: Publication) -> int:
    return pub.offset


def with_patches(pubs: Sequence[Publication], *, text: bool) -> list[Publication]:
    """The first in full, each next one as a patch to its predecessor where that is shorter."""
    out: list[Publication] = []
    effort = fossil.Effort()  # for all of them: the answer is made without a pause
    before: Publication | None = None
    for pub in pubs:
        out.append(pub if before is None else patched(before, pub, effort, text=text))
        before = pub
    return out
