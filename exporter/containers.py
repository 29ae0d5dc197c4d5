"""Nested arguments and results: which values hold tensors, and how to hold others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

#: Attributes by which the caches of transformers hold layers, and layers hold tensors. They are
#: known by the names of their base classes, so that transformers is not imported.
CACHE_CLASSES = frozenset({"Cache", "CacheLayerMixin"})
CACHE_PARTS = (
    ("self_attention_cache", "cross_attention_cache"),
    ("layers",),
    ("keys", "values"),
    ("key_cache", "value_cache"),
)


def items_of(value: Any) -> list[tuple[str | int, Any]] | None:
    """Return keys and items of a container, None for other values."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, tuple | list):
        return list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    parts = _cache_parts(value)
    if parts:
        if len(parts) == 1:
            return list(enumerate(getattr(value, parts[0])))
        return [(part, getattr(value, part)) for part in parts]
    node = pytree.SUPPORTED_NODES.get(type(value))
    return None if node is None else list(enumerate(node.flatten_fn(value)[0]))


def rebuilt(like: Any, items: list[Any]) -> Any:
    """Return a container like this one with other items; a cache is copied, never changed."""
    if isinstance(like, Mapping):
        entries = dict(zip(like, items, strict=True))
        return type(like)(**entries) if dataclasses.is_dataclass(like) else entries
    if isinstance(like, tuple) and hasattr(like, "_fields"):
        return type(like)(*items)
    if isinstance(like, tuple | list):
        return tuple(items) if isinstance(like, tuple) else items
    if dataclasses.is_dataclass(like) and not isinstance(like, type):
        names = [f.name for f in dataclasses.fields(like)]
        return dataclasses.replace(like, **dict(zip(names, items, strict=True)))
    parts = _cache_parts(like)
    if parts:
        made = copy.copy(like)
        values = [items] if parts == ("layers",) else items
        for part, item in zip(parts, values, strict=True):
            setattr(made, part, item)
        return made
    node = pytree.SUPPORTED_NODES[type(like)]
    return node.unflatten_fn(items, node.flatten_fn(like)[1])


def hidden_tensors(value: Any) -> bool:
    """Return whether an object that is not a container has tensors among its attributes."""
    if isinstance(value, nn.Module | type) or not hasattr(value, "__dict__"):
        return False
    return any(
        isinstance(item, Tensor)
        or (isinstance(item, tuple | list) and any(isinstance(i, Tensor) for i in item))
        for item in vars(value).values()
    )


def _cache_parts(value: Any) -> tuple[str, ...]:
    """Return the attributes by which a cache holds tensors, () for other values."""
    if CACHE_CLASSES.isdisjoint(c.__name__ for c in type(value).__mro__):
        return ()
    return next((p for p in CACHE_PARTS if all(hasattr(value, name) for name in p)), ())
