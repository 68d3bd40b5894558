"""Tensors as the bytes of a ``safetensors`` file, each copied once, to its place among them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
ALIGNMENT = 8  # bytes, of the largest numbers


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    """Return the bytes of a file with these tensors, of any device and layout in memory, and texts.

    The file is the length of a header, in eight bytes, the header, and the numbers: those of the largest types first, so that
    all lie at multiples of their sizes. The library's own ``save`` copies them several times, which takes ten times as long.

    Raises:
        TypeError: a tensor of a type that such files do not have.
    """
    unknown = next((name for name, t in tensors.items() if t.dtype not in TYPE_NAMES), None)
    if unknown is not None:
        raise TypeError(f"{unknown}: numbers of type {tensors[unknown].dtype} cannot be saved; give another type")
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    ordered = sorted(tensors.items(), key=_by_size_and_name)
    end = 0
    for name, t in ordered:
        begin, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": TYPE_NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    begin = 8 + len(text)
    contents = torch.empty(begin + end, dtype=torch.uint8)
    head = len(text).to_bytes(8, "little") + text
    contents[:begin] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
    for _, t in ordered:
        size = t.numel() * t.element_size()
        contents[begin : begin + size].view(t.dtype).view(t.shape).copy_(t.detach())
        begin += size
    return contents.numpy().data


def _by_size_and_name(item: tuple[str, Tensor]) -> tuple[int, str]:
    return -item[1].element_size(), item[0]
