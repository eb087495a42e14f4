"""The configuration: where it comes from, its types and its rules."""

from broker.config.errors import ConfigError
from broker.config.load import Loaded, Sources, load, reloader
from broker.config.root import Config
from broker.config.sections import ShutdownOptions

__all__ = ["Config", "ConfigError", "Loaded", "ShutdownOptions", "Sources", "load", "reloader"]
