"""How files are damaged: as bytes, as JSON, as a protobuf."""

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

from google.protobuf.message import Message

Rng = Random
_NUMBERS = (
    0, 1, -1, 2, 7, 64, 255, 256, 65535, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
_TEXTS = ("", "x", "\ud800", "a/../../b", "\x1b[31m\n\0", "9" * 5000, "[" * 3000, "64x96", "nan")


_DEEP = "@deep"  # stands for lists in lists: Python's writer goes no deeper than its reader
_DEPTHS = (70, 600, 100_000)

_VALUES: tuple[Any, ...] = (
    None, True, False, 0.5, -0.0, 1e300, math.inf, math.nan, 10**400, [], {}, [[]], {"": {}},
    [1, 2, 3], [None], ["x"], *_NUMBERS, *_TEXTS,
    *(f"{_DEEP}{depth}" for depth in _DEPTHS),
)  # fmt: skip


def damage_bytes(data: bytes, rng: Rng, donor: bytes = b"") -> bytes:
    """Flip, overwrite, cut, insert, repeat, or splice with another file, once to four times."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not found:
            break
        at = rng.randrange(len(found))
        match rng.randrange(8):
            case 0:
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                found[at] = rng.choice((0, 1, 127, 128, 255))
            case 2:
                del found[at:]
            case 3:
                del found[at : at + rng.randrange(1, 64)]
            case 4:
                found[at:at] = rng.randbytes(rng.randrange(1, 64))
            case 5:
                found[at:at] = found[at : at + rng.randrange(1, 4096)]
            case 6:
                number = rng.choice(_NUMBERS) & (1 << 64) - 1
                width = rng.choice((2, 4, 8))
                order = rng.choice(("little", "big"))
                found[at : at + width] = (number & (1 << 8 * width) - 1).to_bytes(width, order)
            case 7:
                found[at:] = donor[at:]
    return bytes(found)


def damage_json(value: Any, rng: Rng) -> Any:
    """A copy with one to three places replaced, removed, or given another name."""
    copy = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(copy))
        if not places:
            return rng.choice(_VALUES)
        inside, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[rng.choice(_TEXTS[:5])] = inside.pop(key)
            case 2:
                other, name = rng.choice(places)
                taken = other[name] if _has(other, name) else None
                inside[key] = json.loads(json.dumps(taken))
            case 3 if isinstance(inside, list):
                inside[key:key] = [inside[key]] * rng.choice((1, 2, 300))
            case _:
                inside[key] = deepcopy(rng.choice(_VALUES))  # it may be changed in its turn
    return copy


def json_text(value: Any) -> bytes:
    """As JSON; what stands for depth becomes deep."""
    text = json.dumps(value)
    for depth in _DEPTHS:
        text = text.replace(f'"{_DEEP}{depth}"', "[" * depth + "]" * depth)
    return text.encode()


def _has(inside: Any, key: Any) -> bool:
    return key in inside if isinstance(inside, dict) else key < len(inside)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        keys = inside if isinstance(inside, dict) else range(len(inside))
        for key in list(keys):
            yield inside, key
            if isinstance(inside[key], dict | list):
                waiting.append(inside[key])


def damage_message(message: Message, rng: Rng) -> None:
    """Change one to four fields of a protobuf, anywhere in it, in place."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, field = rng.choice(list(_fields(message)))
        change: Callable[..., None] = _change_many if field.is_repeated else _change_one
        change(holder, field, rng)


def _fields(message: Message) -> Iterator[tuple[Message, Any]]:
    waiting = [message]
    while waiting:
        holder = waiting.pop()
        for field, value in holder.ListFields():
            yield holder, field
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _scalar(field: Any, rng: Rng, like: Any) -> Any:
    kinds = type(field)
    if field.cpp_type == kinds.CPPTYPE_STRING:
        if field.type == kinds.TYPE_BYTES:
            return damage_bytes(bytes(like or b"x"), rng)
        return rng.choice([text for text in _TEXTS if "\ud800" not in text])
    if field.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, math.nan, math.inf, 1e38, 0.5))
    if field.cpp_type == kinds.CPPTYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    most = 31 if field.cpp_type in (kinds.CPPTYPE_INT32, kinds.CPPTYPE_UINT32) else 63
    least = 0 if field.cpp_type in (kinds.CPPTYPE_UINT32, kinds.CPPTYPE_UINT64) else -(1 << most)
    return rng.choice([n for n in _NUMBERS if least <= n < 1 << most])


def _change_one(holder: Message, field: Any, rng: Rng) -> None:
    if field.message_type is not None or rng.random() < 0.25:
        holder.ClearField(field.name)
    else:
        setattr(holder, field.name, _scalar(field, rng, getattr(holder, field.name)))


def _change_many(holder: Message, field: Any, rng: Rng) -> None:
    items = getattr(holder, field.name)
    at, other = rng.randrange(len(items)), rng.randrange(len(items))
    if rng.random() < 0.3:
        del items[at]
    elif field.message_type is None:
        items[at] = _scalar(field, rng, items[at])
    elif rng.random() < 0.5:
        items[at].CopyFrom(items[other])
    else:
        items.append(items[other])
