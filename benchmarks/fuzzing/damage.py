"""Ways to damage a file: its bytes, values of JSON and of safetensors headers, words of text, members of archives."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

NASTY: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3.5, -0.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", " ",
    "\u00b2", "9" * 5000, "x", "../../etc/passwd", "timm:resnet18", "\ud800", "a\nb", [], {}, [[]], [None],
    {"a": 1}, [1] * 2000,
]  # fmt: skip
WORDS = [
    "", "-1", "0", "\u00b2", "9" * 4999, "1e999", ".nan", "null", "[", "{", "}", "- - -",
    "!!python/object/apply:os.system [x]",
    "&a [*a]", "\t", "\x00", "true", "x" * 3000, "'", '"', ": :", "../..", "\u202e", "1,2", "%s", "yes",
]  # fmt: skip


def damaged(data: bytes, how: str, rng: Random) -> bytes:
    """The data with one to four faults of its kind ("binary", "text", "json", "safetensors" or "zip")."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = how if rng.random() < 0.7 else "binary"
        data = WAYS[kind](data, rng)
    return data


def _binary(data: bytes, rng: Random) -> bytes:
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))
    # Half of the faults lie at the beginning, where headers are.
    start = rng.randrange(min(len(data), 512)) if rng.random() < 0.5 else rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 1, 2, 8, 64, 1024)))
    return rng.choice(
        (
            lambda: data[:start],
            lambda: data[:start] + data[stop:],
            lambda: data[:start] + data[start:stop] * 2 + data[stop:],
            lambda: data[:start] + bytes(stop - start) + data[stop:],
            lambda: data[:start] + b"\xff" * (stop - start) + data[stop:],
            lambda: data[:start] + bytes(rng.randrange(256) for _ in range(stop - start)) + data[stop:],
            lambda: data[:start] + bytes([data[start] ^ (1 << rng.randrange(8))]) + data[start + 1 :],
            lambda: data + data[start:stop],
            lambda: data[start:stop],
        )
    )()


def _text(data: bytes, rng: Random) -> bytes:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    place = rng.randrange(len(lines))
    words = lines[place].split(" ")
    word = rng.randrange(len(words))
    what = rng.randrange(5)
    if what == 0:
        words[word] = rng.choice(WORDS)
    elif what == 1:
        words.insert(word, rng.choice(WORDS))
    elif what == 2:
        words[word] = words[word].partition(":")[0] + ": " + rng.choice(WORDS)
    lines[place] = " ".join(words)
    if what == 3:
        lines.insert(place, lines[rng.randrange(len(lines))])
    elif what == 4:
        del lines[place]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def changed(value: Any, rng: Random) -> Any:
    """JSON data with one value changed; texts that hold JSON themselves are changed inside."""
    if isinstance(value, str) and value[:1] in "[{" and rng.random() < 0.9:
        try:
            return json.dumps(changed(json.loads(value), rng))
        except ValueError:
            return rng.choice(NASTY)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        what = rng.random()
        if what < 0.1:
            return {key: one for key, one in value.items() if key != name}
        if what < 0.15:
            return {(f"{key}x" if key == name else key): one for key, one in value.items()}
        if what < 0.2:
            return {**value, "beside": rng.choice(NASTY)}
        return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        what = rng.random()
        if what < 0.1:
            return value[:place] + value[place + 1 :]
        if what < 0.2:
            return [*value, value[place]]
        return [changed(one, rng) if index == place else one for index, one in enumerate(value)]
    return rng.choice(NASTY)


def _dumped(value: Any, rng: Random) -> bytes:
    text = json.dumps(value)
    if rng.random() < 0.03:
        text = "[" * 100_000 + text
    return text.encode("utf-8", "surrogatepass")


def _json(data: bytes, rng: Random) -> bytes:
    try:
        return _dumped(changed(json.loads(data), rng), rng)
    except (ValueError, RecursionError):
        return _binary(data, rng)


def _safetensors(data: bytes, rng: Random) -> bytes:
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = _dumped(changed(json.loads(data[8 : 8 + length]), rng), rng)
    except (ValueError, RecursionError, struct.error):
        return _binary(data, rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _zip(data: bytes, rng: Random) -> bytes:
    """One member of an archive damaged, with a right checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return _binary(data, rng)
    if not members:
        return _binary(data, rng)
    pickles = [name for name in members if name.endswith(".pkl")]
    name = rng.choice(pickles) if pickles and rng.random() < 0.7 else rng.choice(list(members))
    members[name] = _binary(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


WAYS: dict[str, Callable[[bytes, Random], bytes]] = {
    "binary": _binary,
    "text": _text,
    "json": _json,
    "safetensors": _safetensors,
    "zip": _zip,
}
