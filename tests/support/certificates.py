"""Certificates for servers of tests."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Authority", "make_certificate"]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("trio-broker tests")
    certificate = _begin(name, name, key).add_extension(_THIS_MACHINE, critical=False).sign(key, hashes.SHA256())
    return _pair(folder, "", certificate, key)


@final
class Authority:
    """A certificate authority that signs what tests need. Its own certificate is `file`, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority of tests")
        own = (
            _begin(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = _write(folder / "authority.pem", own.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str, *, server: bool = False) -> tuple[Path, Path]:
        """Certificate and key as PEM files, of 127.0.0.1 if it is a server's."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begin(_name(name), self._name, key)
        if server:
            builder = builder.add_extension(_THIS_MACHINE, critical=False)
        return _pair(self._folder, f"{name}-", builder.sign(self._key, hashes.SHA256()), key)


_THIS_MACHINE = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _pair(
    folder: Path, prefix: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return (
        _write(folder / f"{prefix}cert.pem", certificate.public_bytes(pem)),
        _write(folder / f"{prefix}key.pem", key.private_bytes(pem, pkcs8, plain)),
    )


def _write(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file
