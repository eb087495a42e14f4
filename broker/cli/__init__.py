"""The command line: the daemon, and commands around its configuration and tokens."""

from broker.cli.main import run

__all__ = ["run"]
