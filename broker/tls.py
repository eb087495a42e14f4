"""TLS as it is configured, for listeners and for outgoing connections (server API §1.6)."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import final

import attrs
import trio

from broker.values import Pem

__all__ = ["TlsOptions", "client_context", "listener_context", "secure", "trusting"]


@final
@attrs.frozen(kw_only=True)
class TlsOptions:
    """TLS of one listener, or of one outgoing connection."""

    enabled: bool = False
    cert_pem: Pem = Pem()
    key_pem: Pem = Pem()
    server_ca_pem: Pem = Pem()
    """Roots that an outgoing connection trusts."""
    client_ca_pem: Pem = Pem()
    """On a listener: clients must show a certificate signed by these."""
    insecure_skip_verify: bool = False
    server_name: str = ""


def trusting(roots: str | None = None) -> ssl.SSLContext:
    """Checks certificates and names against these roots, as PEM, or else against those of the system. At least TLS 1.2.

    Raises:
        ssl.SSLError: they cannot be used.
    """
    context = ssl.create_default_context(cadata=roots)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 began to refuse authorities without key identifiers, which many companies have, and Go takes
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """What an outgoing connection trusts and shows. At least TLS 1.2.

    Raises:
        ssl.SSLError: a certificate or a key cannot be used.
    """
    context = trusting(options.server_ca_pem or None)
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert_pem:
        _load_certificate(context, options.cert_pem, options.key_pem)
    return context


async def secure(sock: socket.socket, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    """TLS with the server `name` over a connected, non-blocking socket, which is closed if that fails.

    Raises:
        OSError: no TLS came about, `ssl.SSLError` where the two could not agree.
    """
    try:
        secured = context.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=name)
    except BaseException:
        sock.close()
        raise
    try:
        await _shake_hands(secured)
    except BaseException:
        secured.close()
        raise
    return secured


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
        else:
            return


def listener_context(options: TlsOptions, *, http2: bool = False) -> ssl.SSLContext:
    """What a listener shows, and what it wants to see of its clients. At least TLS 1.2, and HTTP/1.1 by ALPN, or
    rather HTTP/2 if it may be.

    Raises:
        ssl.SSLError: a certificate or a key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    _load_certificate(context, options.cert_pem, options.key_pem)
    if options.client_ca_pem:
        context.load_verify_locations(cadata=options.client_ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificate(context: ssl.SSLContext, cert: Pem, key: Pem) -> None:
    """Give `context` a certificate to show. OpenSSL's Python binding reads certificates from files only."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pair.pem")
        file.touch(mode=0o600)
        file.write_text(f"{cert}\n{key}\n")
        context.load_cert_chain(file)
