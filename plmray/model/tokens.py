"""Sequences to token ids by table: one byte of a protein is one residue is one token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Source: vocabulary file of the published ESM2 checkpoints, in order.
ESM2_VOCABULARY = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERDTIPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWYX"
UNUSUAL = "OBUZJ"  # become X before tokenising; the stored sequence is never changed


@dataclass(frozen=True)
class ResidueTokenizer:
    """``table``: (256,) token id of each byte, -1 where it is no residue. Marks stand around each sequence."""

    table: NDArray[np.int16]
    front: tuple[int, ...]
    back: tuple[int, ...]
    pad_id: int

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.int16]]:
        """Token ids of each sequence with its marks. Raises ValueError on a character that is no residue."""
        front, back = np.array(self.front, np.int16), np.array(self.back, np.int16)
        rows = []
        for sequence in sequences:
            ids = self.table[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]
            if (ids < 0).any():
                raise ValueError(f"'{sequence[int(np.argmax(ids < 0))]}' is no residue in '{sequence[:12]}…'")
            rows.append(np.concatenate([front, ids, back]))
        return rows


def esm2_tokenizer() -> ResidueTokenizer:
    number = {token: index for index, token in enumerate(ESM2_VOCABULARY)}
    return ResidueTokenizer(_table(number), (number["<cls>"],), (number["<eos>"],), number["<pad>"])


def t5_tokenizer(tokenizer: Any) -> ResidueTokenizer:
    """The table of a ProtT5-style tokenizer, which reads residues joined by spaces and ends with </s>."""
    ids = tokenizer(" ".join(AMINO_ACIDS), add_special_tokens=False)["input_ids"]
    if len(ids) != len(AMINO_ACIDS):
        raise ValueError(f"the tokenizer cuts {len(AMINO_ACIDS)} residues into {len(ids)} tokens; expected one each")
    return ResidueTokenizer(
        _table(dict(zip(AMINO_ACIDS, ids, strict=True))), (), (tokenizer.eos_token_id,), tokenizer.pad_token_id
    )


def _table(number: dict[str, int]) -> NDArray[np.int16]:
    table = np.full(256, -1, dtype=np.int16)
    for letter in AMINO_ACIDS:
        table[ord(letter)] = number[letter]
    for letter in UNUSUAL:
        table[ord(letter)] = number["X"]
    return table
