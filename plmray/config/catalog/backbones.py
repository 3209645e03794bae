"""Encoders by name: where their weights are, how large they are, how long a protein they were published to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plmray.config.catalog.families import Family


@dataclass(frozen=True)
class EncoderSize:
    """An encoder: ``inner`` is the width of all attention heads together, ``feed_forward`` of the layer between."""

    layers: int
    width: int
    inner: int
    feed_forward: int
    heads: int
    vocabulary: int = 33
    gated: bool = False

    @property
    def layer_weights(self) -> int:
        return 4 * self.width * self.inner + (3 if self.gated else 2) * self.width * self.feed_forward

    @property
    def weights(self) -> int:
        """Of the whole encoder, biases and norms left out."""
        return self.layers * self.layer_weights + self.vocabulary * self.width


@dataclass(frozen=True)
class KnownBackbone:
    """A published encoder. ``parameters``: of the encoder alone. ``bundled``: its folder within this package.

    ``longest``: tokens that trained with LoRA at 8, 16 and 24 GB; None in it: longer than was tried (2000).
    """

    hub_id: str
    family: Family
    size: EncoderSize
    parameters: float
    longest: tuple[int, int | None, int | None] | None = None
    bundled: Path | None = None


ASSETS = Path(__file__).resolve().parents[2] / "assets"
BUNDLED = "esm2_plmray_1.6M"


def _esm(width: int, layers: int, heads: int) -> EncoderSize:
    return EncoderSize(layers, width, width, 4 * width, heads)


_T5_XL = EncoderSize(24, 1024, 4096, 16384, 32, vocabulary=128)
_PROSTT5 = EncoderSize(24, 1024, 4096, 16384, 32, vocabulary=150)
_ANKH_BASE = EncoderSize(48, 768, 768, 3072, 12, vocabulary=144, gated=True)
_ANKH_LARGE = EncoderSize(48, 1536, 1024, 3840, 16, vocabulary=144, gated=True)


def _esm2(checkpoint: str, size: EncoderSize, parameters: float, longest: Any) -> KnownBackbone:
    return KnownBackbone(f"facebook/{checkpoint}", "esm2", size, parameters, longest)


# Sources: the published checkpoints of ESM-1b (Rives et al. 2021), ESM2 (Lin et al. 2023), ProtTrans (Elnaggar et al.
# 2021), ProstT5 (Heinzinger et al. 2024), Ankh (Elnaggar et al. 2023); the longest: Schmirler et al. 2024; the bundled
# one: assets/README.md. Judged by tests/config/test_outside_sources.py: names and layers of ESM by fair-esm, parameters
# by models built to these sizes.
# Unproven here: the hub ids, which no test can fetch; marks and prefix of ProstT5 and Ankh, tested on small tokenizers
# of our own making (the published ones are read when they are there, and refused where they put other marks).
KNOWN_BACKBONES: dict[str, KnownBackbone] = {
    "esm2_t6_8M_UR50D": _esm2("esm2_t6_8M_UR50D", _esm(320, 6, 20), 7.5e6, (2000, None, None)),
    "esm2_t12_35M_UR50D": _esm2("esm2_t12_35M_UR50D", _esm(480, 12, 20), 33.5e6, (2000, None, None)),
    "esm2_t30_150M_UR50D": _esm2("esm2_t30_150M_UR50D", _esm(640, 30, 20), 148e6, (1900, 2000, None)),
    "esm2_t33_650M_UR50D": _esm2("esm2_t33_650M_UR50D", _esm(1280, 33, 20), 651e6, (1300, 2000, None)),
    "esm2_t36_3B_UR50D": _esm2("esm2_t36_3B_UR50D", _esm(2560, 36, 40), 2.84e9, (200, 1100, 1600)),
    "esm1b_t33_650M_UR50S": KnownBackbone("facebook/esm1b_t33_650M_UR50S", "esm1b", _esm(1280, 33, 20), 651e6),
    "prot_t5_xl_uniref50": KnownBackbone("Rostlab/prot_t5_xl_uniref50", "t5", _T5_XL, 1.21e9, (500, 1100, 1500)),
    "prot_t5_xl_half_uniref50-enc": KnownBackbone("Rostlab/prot_t5_xl_half_uniref50-enc", "t5", _T5_XL, 1.21e9),
    "ProstT5": KnownBackbone("Rostlab/ProstT5", "prostt5", _PROSTT5, 1.21e9),
    "ankh-base": KnownBackbone("ElnaggarLab/ankh-base", "ankh", _ANKH_BASE, 4.53e8, (400, 1300, 1800)),
    "ankh-large": KnownBackbone("ElnaggarLab/ankh-large", "ankh", _ANKH_LARGE, 1.15e9, (0, 700, 1200)),
    "prot_bert": KnownBackbone("Rostlab/prot_bert", "bert", _esm(1024, 30, 16), 4.2e8),
    BUNDLED: KnownBackbone(f"plmray/{BUNDLED}", "esm2", _esm(160, 5, 5), 1.6e6, bundled=ASSETS / BUNDLED),
}


def known_backbone(name: str) -> KnownBackbone | None:
    by_hub_id = {known.hub_id: known for known in KNOWN_BACKBONES.values()}
    return KNOWN_BACKBONES.get(name) or by_hub_id.get(name)
