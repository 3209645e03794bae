"""Sequences to token ids by table: one byte of a protein is one residue is one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plmray.config.catalog.families import FamilyRules
from plmray.config.vocabulary import AMINO_ACIDS, UNUSUAL, ResidueTokens, built_in_tokens


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

    def to_dict(self) -> dict[str, Any]:
        """As plain data: what a bundle keeps."""
        letters = {chr(byte): int(number) for byte, number in enumerate(self.table) if number >= 0}
        return {"table": letters, "front": list(self.front), "back": list(self.back), "pad_id": self.pad_id}

    @classmethod
    def from_dict(cls, tree: dict[str, Any], vocabulary: int) -> ResidueTokenizer:
        """What ``to_dict`` made. Raises ValueError where that is not so, or the encoder has no such tokens."""
        letters, front, back = tree.get("table"), tree.get("front"), tree.get("back")
        if not isinstance(letters, dict) or set(letters) != set(AMINO_ACIDS + UNUSUAL):
            raise ValueError("its table is not one of the residues")
        if not isinstance(front, list) or not isinstance(back, list):
            raise ValueError("it has no marks")
        ids = [*letters.values(), *front, *back, tree.get("pad_id")]
        if not all(type(number) is int and 0 <= number < vocabulary for number in ids):
            raise ValueError(f"its tokens are not all among the encoder's {vocabulary}")
        return cls(_bytes_table(letters), tuple(front), tuple(back), tree["pad_id"])


def _bytes_table(letters: Mapping[str, int]) -> NDArray[np.int16]:
    table = np.full(256, -1, dtype=np.int16)
    for letter, number in letters.items():
        table[ord(letter)] = number
    return table


def tokenizer_of(tokens: ResidueTokens) -> ResidueTokenizer:
    return ResidueTokenizer(_bytes_table(tokens.letters), tokens.front, tokens.back, tokens.pad_id)


def esm2_tokenizer() -> ResidueTokenizer:
    """Of the built-in vocabulary, that of ESM-1b and ESM2."""
    return tokenizer_of(built_in_tokens())


def tokenizer_by_rules(tokenizer: Any, rules: FamilyRules) -> ResidueTokenizer:
    """The table of a checkpoint's own tokenizer, read off by tokenising all residues the way the family wants it.

    X may be the tokenizer's unknown token, where it has no other for it. Raises ValueError where it does not make one
    known token of each other residue, or other marks than the family's.
    """
    bare = _ids(tokenizer, AMINO_ACIDS, rules, marks=False)
    unknown = [a for a, n in zip(AMINO_ACIDS[:-1], bare, strict=False) if n == tokenizer.unk_token_id]
    if len(bare) != len(AMINO_ACIDS) or unknown:
        found = f"{len(bare)} tokens for {len(AMINO_ACIDS)} residues" if not unknown else f"no token for {unknown}"
        raise ValueError(f"the tokenizer has {found}; expected one known each")
    whole, (before, after) = _ids(tokenizer, AMINO_ACIDS, rules, marks=True), rules.marks
    prefix = () if rules.prefix is None else (tokenizer.convert_tokens_to_ids(rules.prefix),)
    front, back = (*whole[: before - len(prefix)], *prefix), tuple(whole[len(whole) - after :])
    if len(whole) != len(AMINO_ACIDS) + before - len(prefix) + after or tokenizer.unk_token_id in front:
        raise ValueError(f"the tokenizer puts other marks around a sequence than expected ({before}, {after}): {whole}")
    return ResidueTokenizer(_table(dict(zip(AMINO_ACIDS, bare, strict=True))), front, back, tokenizer.pad_token_id)


def _ids(tokenizer: Any, sequence: str, rules: FamilyRules, *, marks: bool) -> list[int]:
    text: Any = rules.joined.join(sequence) if rules.joined else list(sequence)
    split = {} if rules.joined else {"is_split_into_words": True}
    ids: list[int] = tokenizer(text, add_special_tokens=marks, **split)["input_ids"]
    return ids


def _table(number: dict[str, int]) -> NDArray[np.int16]:
    return _bytes_table({letter: number[letter] for letter in AMINO_ACIDS} | dict.fromkeys(UNUSUAL, number["X"]))
