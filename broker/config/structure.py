"""From keys to typed options, with every bad key named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, get_origin

import attrs
from cattrs import AttributeValidationNote, BaseValidationError, Converter, IterableValidationNote
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.gen import make_dict_structure_fn

from broker.config.layers import SCALARS
from broker.config.readers import Raw, read_list, read_map, shape
from broker.config.root import Config
from broker.config.schema import label
from broker.values import Secret

__all__ = ["structure"]


def structure(tree: Mapping[str, Raw]) -> tuple[Config, list[tuple[str, str]]]:
    """Read a tree of keys. Keys that no option goes by are passed over.

    Returns:
        The configuration and no problems; or the default one, and a pair of path and sentence for each bad key.
    """
    try:
        return _converter().structure(tree, Config), []
    except BaseValidationError as error:
        return Config(), list(_problems(error, tree, ""))


@cache
def _converter() -> Converter:
    converter = Converter()
    for leaf, read in SCALARS.items():
        converter.register_structure_hook(leaf, _ignoring_type(read))
    converter.register_structure_hook_factory(_is_mapping, lambda _: _read_secrets)
    converter.register_structure_hook_factory(_is_list, _list_hook)
    converter.register_structure_hook_factory(attrs.has, _section_hook)
    return converter


def _ignoring_type(read: Callable[[Raw], Any]) -> Callable[[Raw, Any], Any]:
    return lambda raw, _: read(raw)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _read_secrets(raw: Raw, _: Any) -> dict[str, Secret]:
    return {key: Secret(value) for key, value in read_map(raw).items()}


def _list_hook(annotation: Any, converter: Converter) -> Callable[[Raw, Any], Any]:
    of_list = homogenous_tuple_structure_factory(annotation, converter)
    return lambda raw, annotation: of_list(read_list(raw), annotation)


def _section_hook(section: type, converter: Converter) -> Callable[[Raw, Any], Any]:
    of_mapping: Any = make_dict_structure_fn(section, converter)

    def read_section(raw: Raw, annotation: Any) -> Any:
        if not isinstance(raw, Mapping):
            raise ValueError(f"not a section: {shape(raw)}")
        return of_mapping(raw, annotation)

    return read_section


def _problems(error: BaseValidationError, raw: Any, path: str) -> Iterator[tuple[str, str]]:
    for one in error.exceptions:
        below, here = raw, path
        for note in getattr(one, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                below, here = raw[note.name], f"{path}.{note.name}" if path else note.name
            elif isinstance(note, IterableValidationNote):
                below = read_list(raw)[int(note.index)]
                here = path + label(below, int(note.index))
        if isinstance(one, BaseValidationError):
            yield from _problems(one, below, here)
        else:
            yield here, str(one)
