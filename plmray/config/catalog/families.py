"""What tells families of encoders apart: tokens, marks, pooling, where adapters go, precision. One row each.

Module names are those of transformers. ``data`` and ``model`` read this table; nothing else in the package names a
layer of an encoder, but the packed engine, which computes two of the families itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["esm2", "esm1b", "esmc", "bert", "t5", "prostt5", "ankh"]
Joined = Literal["", " "]

FULL_PRECISION = ("auto", "fp32", "fp64")
ANY_PRECISION = (*FULL_PRECISION, "bf16")


@dataclass(frozen=True)
class FamilyRules:
    """``attention``, ``attention_module``, ``keys_values``, ``feed_forward``: regular expressions below a layer, of the
    four linear layers of attention, the module that holds them, and what IA3 rescales; ``layer``: of the layer's own
    name up to its number; ``notebook``: endings as the study's notebooks give them to peft.

    ``prefix``: a token before the residues, no residue itself. ``marks``: tokens before and after a sequence, the
    prefix included. ``packs``: whether adapters of many trials can share a pass of the packed engine.
    """

    model_type: str
    layer: str
    attention: str
    attention_module: str
    keys_values: str
    feed_forward: str
    notebook: tuple[str, ...]
    marks: tuple[int, int]
    joined: Joined = ""
    prefix: str | None = None
    has_cls: bool = True
    precisions: tuple[str, ...] = ANY_PRECISION
    packs: bool = False
    notebook_dropout: float = 0.0
    max_residues: int | None = None  # where positions come from a table


_BERT_LIKE = {
    "layer": r"encoder\.layer\.",
    "attention": r"attention\.(self\.(query|key|value)|output\.dense)",
    "attention_module": r"attention\.self",
    "keys_values": r"attention\.self\.(key|value)",
    "feed_forward": r"output\.dense",
}
_T5 = {
    "model_type": "t5",
    "layer": r"encoder\.block\.",
    "attention": r"layer\.0\.SelfAttention\.(q|k|v|o)",
    "attention_module": r"layer\.0\.SelfAttention",
    "keys_values": r"layer\.0\.SelfAttention\.(k|v)",
    "feed_forward": r"layer\.1\.DenseReluDense\.wo",
    "notebook": ("q", "k", "v", "o"),
    "has_cls": False,
    "packs": True,
    "notebook_dropout": 0.2,
}
_QUERY_KEY_VALUE_DENSE = ("query", "key", "value", "dense")

# T5 encoders overflow in float16, whose largest number their activations exceed; so float16 is offered to nobody:
# bf16 takes the same memory with float32's range. Ankh loses accuracy in any half precision (its authors' advice).
FAMILIES: dict[Family, FamilyRules] = {
    "esm2": FamilyRules("esm", notebook=_QUERY_KEY_VALUE_DENSE, marks=(1, 1), packs=True, **_BERT_LIKE),  # type: ignore[arg-type]
    "esm1b": FamilyRules("esm", notebook=_QUERY_KEY_VALUE_DENSE, marks=(1, 1), max_residues=1022, **_BERT_LIKE),  # type: ignore[arg-type]
    "esmc": FamilyRules(
        "esmc",
        layer=r"layers\.",
        attention=r"self_attn\.(q_proj|k_proj|v_proj|o_proj)",
        attention_module=r"self_attn",
        keys_values=r"self_attn\.(k_proj|v_proj)",
        feed_forward=r"mlp\.down_proj",
        notebook=("q_proj", "k_proj", "v_proj", "o_proj"),
        marks=(1, 1),
    ),
    "bert": FamilyRules("bert", notebook=_QUERY_KEY_VALUE_DENSE, marks=(1, 1), joined=" ", **_BERT_LIKE),  # type: ignore[arg-type]
    "t5": FamilyRules(marks=(0, 1), joined=" ", **_T5),  # type: ignore[arg-type]
    "prostt5": FamilyRules(marks=(1, 1), joined=" ", prefix="<AA2fold>", **_T5),  # type: ignore[arg-type]
    "ankh": FamilyRules(marks=(0, 1), precisions=FULL_PRECISION, **_T5),  # type: ignore[arg-type]
}
