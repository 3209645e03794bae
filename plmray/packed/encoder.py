"""ESM2 and T5 encoders on tokens without padding: sequences end to end, attention within each.

The arithmetic is that of transformers' EsmModel and T5EncoderModel, whose weights are read where they lie; tests
hold it to 1e-12 of theirs. ``linear(name, module, x)`` is how adapters get at single layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from plmray.model.adapters import encoder_layers
from plmray.packed.attention import attend


class Linear(Protocol):
    """How a layer of the encoder is computed, by its name: plainly, or with the adapters of many slots."""

    def __call__(self, name: str, module: nn.Module, x: Tensor) -> Tensor: ...

    def on_first_tokens(self) -> Linear:
        """The same for inputs that hold the first token of every sequence only."""


@dataclass(frozen=True)
class Sequences:
    """Sequences end to end. ``tokens``: (tokens,) ids; ``lengths``: tokens of each sequence."""

    tokens: Tensor
    lengths: list[int]

    @property
    def positions(self) -> Tensor:
        """(tokens,) place of every token in its own sequence."""
        return torch.cat([torch.arange(n) for n in self.lengths]).to(self.tokens.device)

    @property
    def first_tokens(self) -> Tensor:
        """(sequences,) where each sequence begins."""
        lengths = torch.tensor(self.lengths, device=self.tokens.device)
        return lengths.cumsum(0) - lengths


def hidden_states(encoder: nn.Module, batch: Sequences, linear: Linear, start: Tensor | None, first: int) -> Tensor:
    """(tokens, width) last hidden states. ``start``: what enters layer ``first``, where it is known already."""
    if is_t5(encoder):
        return _t5(encoder, batch, linear, start, first)
    hidden = _esm2_start(encoder, batch) if start is None else start
    hidden = _esm2_layers(encoder, batch, linear, hidden, first, encoder_layers(encoder))
    return _layer_norm(encoder.encoder.emb_layer_norm_after, hidden)  # type: ignore[union-attr]


def first_token_states(encoder: Any, batch: Sequences, linear: Linear, start: Tensor | None, first: int) -> Tensor:
    """(sequences, width) last hidden states of every sequence's first token, for ESM2's pooling: cls.

    The last layer need not compute what no loss reads: all but the keys and values of the other tokens.
    """
    hidden = _esm2_start(encoder, batch) if start is None else start
    last = encoder_layers(encoder) - 1
    hidden = _esm2_layers(encoder, batch, linear, hidden, first, last)
    rotary = _rotary_table(encoder, batch, hidden.dtype)
    hidden = _esm2_layer(encoder, last, batch, linear, hidden, rotary, batch.first_tokens)
    return _layer_norm(encoder.encoder.emb_layer_norm_after, hidden)


@torch.no_grad()
def prefix_states(encoder: nn.Module, batch: Sequences, layers: int) -> Tensor:
    """(tokens, width) hidden states that enter layer ``layers``: what never changes where only layers above adapt."""
    if is_t5(encoder):
        return _t5_blocks(encoder, batch, Unadapted(), _t5_start(encoder, batch), 0, layers)
    return _esm2_layers(encoder, batch, Unadapted(), _esm2_start(encoder, batch), 0, layers)


def is_t5(encoder: nn.Module) -> bool:
    return hasattr(encoder.config, "d_model")


def plain_linear(module: nn.Module, x: Tensor) -> Tensor:
    """A layer without an adapter."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    return functional.linear(x.to(weight.dtype), weight, bias)


class Unadapted:
    """The encoder as it is."""

    def __call__(self, name: str, module: nn.Module, x: Tensor) -> Tensor:  # noqa: ARG002
        return plain_linear(module, x)

    def on_first_tokens(self) -> Linear:
        return self


def _esm2_start(encoder: Any, batch: Sequences) -> Tensor:
    embeddings = encoder.embeddings
    hidden: Tensor = embeddings.word_embeddings(batch.tokens)
    if embeddings.token_dropout:
        hidden = hidden * (1 - 0.15 * 0.8)  # as transformers scales where no token is masked
    return hidden if embeddings.layer_norm is None else _layer_norm(embeddings.layer_norm, hidden)


def _esm2_layers(encoder: Any, batch: Sequences, linear: Linear, hidden: Tensor, first: int, last: int) -> Tensor:
    rotary = _rotary_table(encoder, batch, hidden.dtype)
    for number in range(first, last):
        hidden = _esm2_layer(encoder, number, batch, linear, hidden, rotary)
    return hidden


def _esm2_layer(
    encoder: Any,
    number: int,
    batch: Sequences,
    linear: Linear,
    hidden: Tensor,
    rotary: tuple[Tensor, Tensor],
    only: Tensor | None = None,
) -> Tensor:
    """One layer; ``only``: the first tokens, where nothing else of its output is wanted."""
    layer, name, heads = encoder.encoder.layer[number], f"encoder.layer.{number}", encoder.config.num_attention_heads
    inner, output = layer.attention.self, layer.attention.output
    normed = _layer_norm(layer.attention.LayerNorm, hidden)
    key, value = (
        _heads(linear(f"{name}.attention.self.{part}", getattr(inner, part), normed), heads)
        for part in ("key", "value")
    )
    key = _rotated(key, rotary)
    if only is not None:
        hidden, normed, linear = hidden[only], normed[only], linear.on_first_tokens()
        rotary = (rotary[0][only], rotary[1][only])
    query = _heads(linear(f"{name}.attention.self.query", inner.query, normed), heads)
    query = _rotated(query * query.shape[-1] ** -0.5, rotary)
    mixed = attend(query, key, value, batch.lengths)
    hidden = hidden + linear(f"{name}.attention.output.dense", output.dense, mixed)
    normed = _layer_norm(layer.LayerNorm, hidden)
    inner_states = functional.gelu(linear(f"{name}.intermediate.dense", layer.intermediate.dense, normed))
    return hidden + linear(f"{name}.output.dense", layer.output.dense, inner_states)


def _rotary_table(encoder: Any, batch: Sequences, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(tokens, 1, half a head) cosines and sines of float32 angles."""
    inverse = encoder.rotary_embeddings.inv_freq.to(batch.tokens.device, torch.float32)
    angles = (batch.positions[:, None].float() * inverse).unsqueeze(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return angles.cos().to(wide), angles.sin().to(wide)


class _Rotation(torch.autograd.Function):
    """Rotary positions: every pair of numbers turned by its token's angle; backward turns it back.

    transformers takes what enters, and each part of its gradient, through float32 at every precision; so does this.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        left, right = x.float().chunk(2, dim=-1)
        return _joined(x, left * cos - right * sin, right * cos + left * sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (cos, sin) = grads, ctx.saved_tensors
        left, right = grad.to(cos.dtype).chunk(2, dim=-1)
        turned = [(part * factor).float().to(cos.dtype) for part in (left, right) for factor in (cos, sin)]
        return _joined(grad, turned[0] + turned[3], turned[2] - turned[1]), None, None


def _rotated(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    out: Tensor = _Rotation.apply(x, *rotary)  # type: ignore[no-untyped-call]
    return out


def _joined(like: Tensor, left: Tensor, right: Tensor) -> Tensor:
    out = torch.empty_like(like)
    half = like.shape[-1] // 2
    out[..., :half], out[..., half:] = left, right
    return out


def _layer_norm(module: Any, x: Tensor) -> Tensor:
    return functional.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(len(x), heads, -1)


def _t5(encoder: Any, batch: Sequences, linear: Linear, start: Tensor | None, first: int) -> Tensor:
    hidden = _t5_start(encoder, batch) if start is None else start
    hidden = _t5_blocks(encoder, batch, linear, hidden, first, encoder_layers(encoder))
    return _rms_norm(encoder.encoder.final_layer_norm, hidden)


def _t5_start(encoder: Any, batch: Sequences) -> Tensor:
    hidden: Tensor = encoder.shared(batch.tokens)
    return hidden


def _t5_blocks(encoder: Any, batch: Sequences, linear: Linear, hidden: Tensor, first: int, last: int) -> Tensor:
    heads, bias = encoder.config.num_heads, _PositionBias(encoder)
    for number in range(first, last):
        attention, feed_forward = encoder.encoder.block[number].layer
        inner, name = attention.SelfAttention, f"encoder.block.{number}.layer"
        normed = _rms_norm(attention.layer_norm, hidden)
        query, key, value = (
            _heads(linear(f"{name}.0.SelfAttention.{part}", getattr(inner, part), normed), heads)
            for part in ("q", "k", "v")
        )
        mixed = attend(query, key, value, batch.lengths, bias)
        hidden = hidden + linear(f"{name}.0.SelfAttention.o", inner.o, mixed)
        normed = _rms_norm(feed_forward.layer_norm, hidden)
        dense = feed_forward.DenseReluDense
        parts = [part for part in ("wi", "wi_0", "wi_1") if hasattr(dense, part)]
        inputs = [linear(f"{name}.1.DenseReluDense.{part}", getattr(dense, part), normed) for part in parts]
        active = dense.act(inputs[0])
        gated = active * inputs[1] if len(inputs) == 2 else active
        hidden = hidden + linear(f"{name}.1.DenseReluDense.wo", dense.wo, gated)
    return hidden


class _PositionBias:
    """T5's relative position bias, shared by all blocks, made once for each length."""

    def __init__(self, encoder: Any) -> None:
        self.dtype = encoder.encoder.block[0].layer[0].SelfAttention.q.weight.dtype
        self.attention = encoder.encoder.block[0].layer[0].SelfAttention
        self._made: dict[int, Tensor] = {}

    def __call__(self, length: int) -> Tensor:
        if length not in self._made:
            with torch.no_grad():
                self._made[length] = self.attention.compute_bias(length, length).to(self.dtype)
        return self._made[length]


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    """The mean square in float32 at every precision, as transformers has it."""
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    normed: Tensor = module.weight * (x * torch.rsqrt(variance + module.variance_epsilon))
    return normed


def batches_of(lengths: list[int], token_budget: int) -> Iterator[slice]:
    """Runs of sequences, each of at most ``token_budget`` tokens (or one sequence)."""
    start, tokens = 0, 0
    for number, length in enumerate(lengths):
        if number > start and tokens + length > token_budget:
            yield slice(start, number)
            start, tokens = number, 0
        tokens += length
    if lengths:
        yield slice(start, len(lengths))
