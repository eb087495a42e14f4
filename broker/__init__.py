"""trio-broker: a real-time messaging server on Trio, wire-compatible with Centrifugo 6.9."""

__version__ = "0.1.0"
PROTOCOL_VERSION = "6.9.1 OSS"
"""What the server answers as its version on the wire: the Centrifugo release whose contract it keeps."""
