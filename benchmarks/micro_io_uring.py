"""What a fan-out could gain from io_uring: the same bytes to 1,000 sockets, sent three ways (docs/adr/0011).

    pip install cffi setuptools; apt-get install liburing-dev python3-dev
    python -m benchmarks.micro_io_uring

A loop of `sock.send` in Python, a loop of `send` in C, and io_uring with 256 sends per system call in C: CPU time of
this process, medians of interleaved rounds. Readers run in a process of their own, on another core where there is one.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SOCKETS = 1000
BYTES = 170
ROUNDS = 60
PAUSE = 0.012
"""Seconds between two rounds, in which the readers read."""

_DECLARED = """
void *ring_new(unsigned entries);
int ring_send(void *ring, int *fds, int count, const char *data, unsigned length, int *sent);
int loop_send(int *fds, int count, const char *data, unsigned length, int *sent);
"""
_SOURCE = r"""
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/socket.h>

static void *ring_new(unsigned entries) {
    struct io_uring *ring = malloc(sizeof *ring);
    struct io_uring_params params = {0};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    return io_uring_queue_init_params(entries, ring, &params) < 0 ? NULL : ring;
}

static int ring_send(void *given, int *fds, int count, const char *data, unsigned length, int *sent) {
    struct io_uring *ring = given;
    for (int done = 0; done < count;) {
        int batch = count - done > 256 ? 256 : count - done;
        for (int i = 0; i < batch; i++) {
            struct io_uring_sqe *entry = io_uring_get_sqe(ring);
            io_uring_prep_send(entry, fds[done + i], data, length, MSG_DONTWAIT);
            entry->user_data = done + i;
        }
        io_uring_submit_and_wait(ring, batch);
        struct io_uring_cqe *answer;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(ring, head, answer) {
            sent[answer->user_data] = answer->res;
            seen++;
        }
        io_uring_cq_advance(ring, seen);
        done += batch;
    }
    return 0;
}

static int loop_send(int *fds, int count, const char *data, unsigned length, int *sent) {
    for (int i = 0; i < count; i++) {
        long n = send(fds[i], data, length, MSG_DONTWAIT);
        sent[i] = n < 0 ? -errno : (int)n;
    }
    return 0;
}
"""


def _on_core(number: int) -> None:
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {number})


def _read(address: Any) -> None:
    _on_core(1)
    poll = select.epoll()
    readers = {}
    for _ in range(SOCKETS):
        sock = socket.create_connection(address)
        sock.setblocking(False)
        readers[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                if not readers[fd].recv(65536):
                    return
            except BlockingIOError:
                continue


def _build() -> Any:
    import cffi

    with tempfile.TemporaryDirectory() as folder:
        builder = cffi.FFI()
        builder.cdef(_DECLARED)
        builder.set_source("_micro_io_uring", _SOURCE, libraries=["uring"], extra_compile_args=["-O2"])
        builder.compile(tmpdir=folder)
        sys.path.insert(0, folder)
        import _micro_io_uring

        return _micro_io_uring


def main() -> None:
    module = _build()
    lib, ffi = module.lib, module.ffi
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(SOCKETS)
    multiprocessing.Process(target=_read, args=(listening.getsockname(),), daemon=True).start()
    _on_core(0)
    peers = []
    for _ in range(SOCKETS):
        sock, _ = listening.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        peers.append(sock)
    data = b"x" * BYTES
    fds, sent, ring = ffi.new("int[]", [each.fileno() for each in peers]), ffi.new("int[]", SOCKETS), lib.ring_new(256)
    if ring == ffi.NULL:
        sys.exit("this kernel does not let us use io_uring")
    sends = [each.send for each in peers]

    def in_python() -> None:
        for send in sends:
            if send(data) != BYTES:
                sys.exit("the readers are too slow")

    ways: dict[str, Callable[[], Any]] = {
        "loop of send in Python": in_python,
        "loop of send in C": lambda: lib.loop_send(fds, SOCKETS, data, BYTES, sent),
        "io_uring in C, 256 at a time": lambda: lib.ring_send(ring, fds, SOCKETS, data, BYTES, sent),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.process_time()
            way()
            took[name].append((time.process_time() - began) / SOCKETS * 1e6)
            if any(each != BYTES for each in sent) and way is not in_python:
                sys.exit("the readers are too slow")
            time.sleep(PAUSE)
    first = statistics.median(took["loop of send in Python"])
    for name, values in took.items():
        middle = statistics.median(values)
        print(f"{name:30} {middle:6.2f} µs per send {first / middle:6.2f} x")


if __name__ == "__main__":
    main()
