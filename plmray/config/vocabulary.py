"""Which token each residue is: as the checkpoint says, read without any model library.

A built-in table stands in only where a checkpoint brings none and has as many tokens as that table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWYX"
UNUSUAL = "OBUZJ"  # become X before tokenising; the stored sequence is never changed

# Tokens of ESM-1b and ESM2 in order. Source, and judge in tests/spec/test_vocabulary.py: the alphabet "ESM-1b" of the
# package fair-esm 2.0.0, and the vocab.txt of published checkpoints.
ESM_TOKENS = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
VOCABULARY_FILE = "vocab.txt"
# What tokenizers are read from; all of them together name what a checkpoint reads a protein as.
TOKENIZER_FILES = (
    *(VOCABULARY_FILE, "tokenizer.json", "spiece.model", "tokenizer.model"),
    *("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"),
)
_OTHER_TOKENIZERS = ("tokenizer.json", "spiece.model", "tokenizer.model")
UNKNOWN_STRUCTURE = "#"  # of a structure-aware vocabulary: a residue and the letter of its structure
MOST_PADDING = 63  # rows that an embedding table may have beyond its vocabulary, to a round number


@dataclass(frozen=True)
class ResidueTokens:
    """``letters``: token of each residue. ``front``, ``back``: marks around a protein."""

    letters: Mapping[str, int]
    front: tuple[int, ...]
    back: tuple[int, ...]
    pad_id: int

    def as_list(self) -> list[Any]:
        """Plain data, for a hash."""
        return [sorted(self.letters.items()), list(self.front), list(self.back), self.pad_id]


def residue_tokens(tokens: Sequence[str], marks: Mapping[str, str] | None = None) -> ResidueTokens:
    """The tokens of residues in an ESM vocabulary, and its marks <cls>, <eos>, <pad> by the names ``marks`` gives them.

    A structure-aware vocabulary spells a residue of unknown structure ``K#``. Raises ValueError where a residue has no
    token of its own: then the vocabulary is of something else than residues.
    """
    number = {token: index for index, token in enumerate(tokens)}
    if len(number) < len(tokens):
        raise ValueError(f"its vocabulary names {len(tokens) - len(number)} tokens twice")
    letters = {letter: _spelled(letter, number) for letter in AMINO_ACIDS[:-1]}
    unspelled = [letter for letter, token in letters.items() if token is None]
    if unspelled:
        raise ValueError(
            f"its vocabulary of {len(tokens)} tokens ({', '.join(tokens[4:8])}, …) has no token for the residues "
            f"{', '.join(unspelled)}; expected one token a residue"
        )
    names = {"cls_token": "<cls>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", **(marks or {})}
    absent = [names[mark] for mark in ("cls_token", "eos_token", "pad_token") if names[mark] not in number]
    if absent:
        raise ValueError(f"its vocabulary has no {', '.join(absent)}, the marks of this family")
    unknown = _spelled("X", number)
    unknown = number.get(2 * UNKNOWN_STRUCTURE, number.get(names["unk_token"])) if unknown is None else unknown
    if unknown is None:
        raise ValueError("its vocabulary has neither X nor a token for what is unknown; O, B, U, Z, J read as X")
    known = {letter: token for letter, token in letters.items() if token is not None} | {"X": unknown}
    front, back = (number[names["cls_token"]],), (number[names["eos_token"]],)
    return ResidueTokens(known | dict.fromkeys(UNUSUAL, unknown), front, back, number[names["pad_token"]])


def _spelled(letter: str, number: Mapping[str, int]) -> int | None:
    return number.get(letter, number.get(letter + UNKNOWN_STRUCTURE))


def built_in_tokens() -> ResidueTokens:
    """Of ESM-1b and ESM2."""
    return residue_tokens(ESM_TOKENS)


def checkpoint_tokens(snapshot: Path, vocab_size: int) -> ResidueTokens | None:
    """The residues of an ESM checkpoint folder; None where only transformers can read its tokenizer files.

    Raises ValueError where they cannot be known, or do not fit the ``vocab_size`` of its weights.
    """
    file = snapshot / VOCABULARY_FILE
    if not file.is_file():
        if any((snapshot / name).is_file() for name in _OTHER_TOKENIZERS):
            return None
        if vocab_size != len(ESM_TOKENS):
            raise ValueError(
                f"it brings no {VOCABULARY_FILE} and has {vocab_size} tokens, where ESM2 has {len(ESM_TOKENS)}: which "
                "token a residue is cannot be known; put its vocabulary beside its weights"
            )
        return built_in_tokens()
    # As EsmTokenizer reads it: a line a token, whatever stands in it.
    tokens = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    if not 0 <= vocab_size - len(tokens) <= MOST_PADDING:
        raise ValueError(
            f"its {VOCABULARY_FILE} has {len(tokens)} tokens and its weights {vocab_size}: they are not of one model"
        )
    return residue_tokens(tokens, _marks_of(snapshot))


def _marks_of(snapshot: Path) -> dict[str, str]:
    """The names of marks as the tokenizer's own files give them, where they do."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = snapshot / name
        try:
            tree = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError as error:
            raise ValueError(f"its {name} is no JSON ({error}); download it again") from error
        for mark in ("cls_token", "eos_token", "pad_token", "unk_token"):
            value = tree.get(mark) if isinstance(tree, dict) else None
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                named[mark] = value
    return named
