"""One safetensors file, written piece by piece: nothing but the piece at hand is in memory."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

TYPES = {
    torch.uint8: "U8",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Column:
    """A tensor that comes in pieces along its first axis."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Iterable[Tensor]


def write_pieces(path: Path, columns: Mapping[str, Column], metadata: Mapping[str, str]) -> None:
    """Write the columns, one after the other; ValueError if their pieces are not of the shape that was said."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, column in columns.items():
        size = torch.Size(column.shape).numel() * column.dtype.itemsize
        header[name] = {
            "dtype": TYPES[column.dtype],
            "shape": list(column.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, column in columns.items():
            begin = file.tell()
            for piece in column.pieces:
                flat = piece.detach().cpu().to(column.dtype).contiguous().flatten()
                file.write(flat.view(torch.uint8).numpy().data)
            written = file.tell() - begin
            if written != torch.Size(column.shape).numel() * column.dtype.itemsize:
                raise ValueError(f"{name}: {written} bytes came where {column.shape} were said")
