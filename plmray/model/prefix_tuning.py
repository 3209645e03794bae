"""Prefix tuning: trained keys and values before those of the residues, in every adapted layer (Li & Liang 2021).

peft keeps its prefixes in a decoder's cache, which encoders have not. Here they enter where transformers hands
queries, keys and values to its attention function, so that every family with such a function takes them.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

PREFIX_ATTENTION = "plmray_prefix"
INITIAL_SD = 0.02


def add_prefixes(encoder: nn.Module, attention_layers: str, tokens: int) -> None:
    """Give every attention whose name matches ``attention_layers`` ``tokens`` trained keys and values a head."""
    _register()
    config: Any = encoder.config
    heads = int(getattr(config, "num_heads", None) or config.num_attention_heads)
    head_width = int(getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // heads)
    for name, module in encoder.named_modules():
        if re.fullmatch(attention_layers, name):
            for part in ("prefix_keys", "prefix_values"):
                module.register_parameter(part, nn.Parameter(INITIAL_SD * torch.randn(heads, tokens, head_width)))
    config._attn_implementation = PREFIX_ATTENTION


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PREFIX_ATTENTION, _attention)
    AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' sdpa attention with the module's prefix before keys and values."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if hasattr(module, "prefix_keys"):
        tokens = module.prefix_keys.shape[1]
        key, value = (
            torch.cat([prefix.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)
            for prefix, own in ((module.prefix_keys, key), (module.prefix_values, value))
        )
        if attention_mask is not None:
            attention_mask = _widened(attention_mask, tokens, seen=True if attention_mask.dtype == torch.bool else 0.0)
        if options.get("position_bias") is not None:
            options["position_bias"] = _widened(options["position_bias"], tokens, seen=0.0)
    out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return out


def _widened(mask: Tensor, tokens: int, seen: bool | float) -> Tensor:
    return torch.cat([mask.new_full((*mask.shape[:-1], tokens), seen), mask], dim=-1)
