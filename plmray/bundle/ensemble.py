"""A bundle in memory: its seeds' models on one device, and predictions of single proteins by all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plmray.bundle.folder import BundleFacts, seed_folder
from plmray.config.backbone_names import weights_hash
from plmray.data.batches import Batch, collate, sorted_batches
from plmray.data.encoded import EncodedData, EncodedSplit, encode_sequences
from plmray.errors import FolderError, SetupError
from plmray.metrics import probabilities
from plmray.model.assemble import ProteinModel, build_model, encode, load_tensors, pool, selected_tensors
from plmray.model.backbones import fetch_weights, load_encoder
from plmray.model.tokens import ResidueTokenizer
from plmray.seeds import Streams
from plmray.train import checkpoint

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Predicted:
    """Of one protein: ``values`` (units, outputs), the mean over seeds, and ``spread``, their SD (NaN of one seed).

    Units are the protein, or its residues. Values of regression tasks, else probabilities.
    """

    values: NDArray[np.float64]
    spread: NDArray[np.float64]


class Ensemble:
    """``Ensemble(folder)`` loads a bundle. Raises FolderError or SetupError where it or its backbone cannot be had."""

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self.facts = BundleFacts.read(folder)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone = self.facts.settings.backbone
        if backbone.embeddings is not None:
            raise SetupError(f"{folder} was trained on embeddings of your own: there is no encoder to predict with")
        fetch_weights(backbone, folder)
        if self.facts.weights_hash != weights_hash(backbone, folder):
            raise FolderError(f"the weights of '{backbone.name}' are not those that {folder} was trained on")
        encoder = load_encoder(backbone, folder)
        config: Any = encoder.config
        self.width = int(config.hidden_size)
        try:
            self.tokenizer = ResidueTokenizer.from_dict(self.facts.tokenizer, config.vocab_size)
        except ValueError as error:
            raise FolderError(f"{folder}: its tokenizer cannot be used ({error}); export the bundle again") from error
        dtype = torch.float64 if self.facts.precision == "fp64" else torch.float32
        self.encoder = encoder.to(self.device, dtype).eval()
        self.autocast = torch.bfloat16 if self.facts.precision == "bf16" else None
        self.models = [self._model(folder, seed).to(self.device, dtype).eval() for seed in self.facts.seeds]
        self.scaling = [self._scaling(seed_folder(folder, seed), dtype) for seed in self.facts.seeds]

    def _model(self, folder: Path, seed: int) -> ProteinModel:
        facts = self.facts
        model = build_model(
            facts.settings, self.encoder, facts.family, facts.num_outputs, Streams(seed), facts.level, total_steps=100
        )
        load_tensors(model, checkpoint.load(seed_folder(folder, seed), selected_tensors(model)))
        model.autocast_dtype = self.autocast
        return model

    def _scaling(self, folder: Path, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Mean and SD of the training embeddings, where the head reads standardised ones."""
        found, wanted = checkpoint.load_scaling(folder), self.facts.settings.head.standardize
        if (found is not None) != wanted or (found is not None and len(found[0]) != self.width):
            raise FolderError(f"{folder}: its scaling does not belong to these settings; export the bundle again")
        return None if found is None else (found[0].to(self.device, dtype), found[1].to(self.device, dtype))

    def predict(self, sequences: Sequence[str]) -> list[Predicted]:
        """Predictions of each protein, in their order, whatever stands beside it. Raises ValueError on no residue."""
        if not sequences:
            return []
        data = self._encoded(sequences)
        split = data.splits["test"]
        found = np.zeros((len(self.models), split.num_units, self.facts.num_outputs))
        for rows in sorted_batches(split, BATCH_TOKENS):
            batch = collate(data, split, rows).to(self.device)
            for number, outputs in enumerate(self._outputs(batch)):
                found[number, split.units(rows)] = outputs.double().cpu().numpy()
        return self._by_protein(split, found)

    @torch.no_grad()
    def _outputs(self, batch: Batch) -> list[Tensor]:
        """Raw outputs of every seed; where the encoder stayed frozen it is asked once for all of them."""
        embedded: Tensor | None = None
        if self.facts.settings.adapter.kind == "none":
            embedded = encode(self.encoder, batch.tokens, batch.attention, self.autocast)
            if self.facts.level == "protein" and not self.models[0].head_reads_residues:
                embedded = pool(embedded, batch.residues, self.facts.settings.pooling)
        outputs = []
        for model, scaling in zip(self.models, self.scaling, strict=True):
            read = embedded if embedded is None or scaling is None else (embedded - scaling[0]) / scaling[1]
            outputs.append(model(batch.tokens, batch.attention, batch.residues, read))
        return outputs

    def _encoded(self, sequences: Sequence[str]) -> EncodedData:
        facts, tokenizer = self.facts, self.tokenizer
        front, back = len(tokenizer.front), len(tokenizer.back)
        split = encode_sequences([self._as_trained(s) for s in sequences], tokenizer.encode, front + back)
        if facts.level == "residue":
            residues = int(split.residue_offsets[-1])
            split = replace(split, targets=np.zeros(residues), counted=np.ones(residues, bool))
        pad, outputs = tokenizer.pad_id, facts.num_outputs
        return EncodedData({"test": split}, facts.kind, facts.classes, outputs, pad, front, back, facts.level)

    def _as_trained(self, sequence: str) -> str:
        """The residues that training would have seen of a protein."""
        first, last = self.facts.window
        return sequence[first:last][: self.facts.cut_at]

    def _by_protein(self, split: EncodedSplit, found: NDArray[np.float64]) -> list[Predicted]:
        kind = self.facts.kind
        values = found if kind == "regression" else np.stack([_two_dimensional(kind, own) for own in found])
        mean = values.mean(0)
        spread = values.std(0, ddof=1) if len(values) > 1 else np.full(mean.shape, np.nan)
        ends = split.residue_offsets if split.counted is not None else np.arange(len(split) + 1)
        return [Predicted(mean[a:b], spread[a:b]) for a, b in itertools.pairwise(ends)]


def _two_dimensional(kind: Any, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    likely = probabilities(kind, outputs)
    return likely[:, None] if likely.ndim == 1 else likely
