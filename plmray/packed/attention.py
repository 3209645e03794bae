"""Attention within every sequence of a batch without padding, by what a device does well.

All forms take (tokens, heads, head width) and give (tokens, width), with no scale of their own. ``query`` holds all
tokens, or one for every sequence. ``bias(length)``: (1, heads, length, length) added to the scores, as T5 has it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

Bias = Callable[[int], Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], bias: Bias | None = None) -> Tensor:
    """The form for this device: sequence by sequence on a CPU; on a GPU by variable lengths, or padded where its
    kernel does not serve (float32, or a bias)."""
    if query.device.type == "cpu":
        return attend_by_length(query, key, value, lengths, bias)
    if bias is None and query.dtype in (torch.bfloat16, torch.float16):
        return attend_variable(query, key, value, lengths)
    return attend_padded(query, key, value, lengths, bias)


def attend_by_length(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], bias: Bias | None = None) -> Tensor:
    """One call for every run of neighbours of one length."""
    if query.dtype == torch.bfloat16:
        # Measured at head width 16: a CPU's float32 kernel takes three quarters of the bf16 one's time.
        wide = None if bias is None else (lambda length: bias(length).float())
        return attend_by_length(query.float(), key.float(), value.float(), lengths, wide)
    runs = [(length, len(list(group))) for length, group in groupby(lengths)]
    asked = [count * (length if len(query) == len(key) else 1) for length, count in runs]
    sizes = [length * count for length, count in runs]
    pieces = zip(runs, torch.split(query, asked), torch.split(key, sizes), torch.split(value, sizes), strict=True)
    parts = []
    for (length, count), *own in pieces:
        q, k, v = (part.view(count, -1, *part.shape[1:]).transpose(1, 2) for part in own)
        mask = bias(length) if bias else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        parts.append(mixed.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def attend_padded(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], bias: Bias | None = None) -> Tensor:
    """One call for all sequences, padded to the longest for it."""
    whole = torch.tensor(lengths, device=key.device)
    asked = whole if len(query) == len(key) else torch.ones_like(whole)
    q, k, v = (_padded(x, sizes).transpose(1, 2) for x, sizes in ((query, asked), (key, whole), (value, whole)))
    there = (torch.arange(max(lengths), device=key.device) < whole[:, None])[:, None, None, :]
    mask = there if bias is None else bias(max(lengths)).masked_fill(~there, float("-inf"))
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return mixed.transpose(1, 2).flatten(2)[_places(asked)]


def attend_variable(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Flash attention over variable lengths: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    asked = lengths if len(query) == len(key) else [1] * len(lengths)
    ends = [torch.tensor([0, *own], device=key.device).cumsum(0).int() for own in (asked, lengths)]
    mixed = varlen_attn(query, key, value, ends[0], ends[1], max(asked), max(lengths), scale=1.0)
    assert isinstance(mixed, Tensor)
    return mixed.flatten(1)


def _padded(x: Tensor, sizes: Tensor) -> Tensor:
    """(sequences, longest, heads, head width) of tokens end to end, zeros behind the shorter ones."""
    out = x.new_zeros(len(sizes), int(sizes.max()), *x.shape[1:])
    return out.index_put(_places(sizes), x)


def _places(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every token in a padded batch."""
    rows = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    starts = sizes.cumsum(0) - sizes
    return rows, torch.arange(len(rows), device=sizes.device) - starts[rows]
