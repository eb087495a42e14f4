"""The configuration: where it comes from, its types and its rules."""

from broker.config.advice import hooks_advice
from broker.config.dump import as_tree, as_variables, file_tree, written_as
from broker.config.errors import ConfigError
from broker.config.load import Loaded, Sources, configure, load, reloader
from broker.config.restart import after_reload, waits_for_restart
from broker.config.root import Config
from broker.config.sections import ShutdownOptions
from broker.durations import format_duration

__all__ = [
    "Config",
    "ConfigError",
    "Loaded",
    "ShutdownOptions",
    "Sources",
    "after_reload",
    "as_tree",
    "as_variables",
    "configure",
    "file_tree",
    "format_duration",
    "hooks_advice",
    "load",
    "reloader",
    "waits_for_restart",
    "written_as",
]
