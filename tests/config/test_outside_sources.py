"""Constants against sources that this project did not write. What has none is marked unproven where it stands."""

from __future__ import annotations

import inspect
import re

import pytest

from plmray.config.catalog.backbones import KNOWN_BACKBONES
from plmray.config.catalog.families import FAMILIES
from tests.model.families import esm_alphabet

ESM = [name for name, known in KNOWN_BACKBONES.items() if known.hub_id.startswith("facebook/")]


@pytest.mark.parametrize("name", ESM)
def test_names_and_layers_of_esm_are_those_of_fair_esm(name: str) -> None:
    esm = pytest.importorskip("esm", reason="fair-esm is not installed")
    assert callable(getattr(esm.pretrained, name)), "its authors' package loads no such model"
    described = re.search(r"(\d+) layer", inspect.getdoc(getattr(esm.pretrained, name)) or "")
    layers = int(described[1]) if described else int(re.search(r"_t(\d+)_", name)[1])  # type: ignore[index]
    assert KNOWN_BACKBONES[name].size.layers == layers


@pytest.mark.parametrize("name", [name for name in ESM if KNOWN_BACKBONES[name].family == "esm2"])
def test_parameters_of_esm2_are_those_of_the_model_and_of_its_name(name: str) -> None:
    import torch
    from transformers import EsmModel

    from plmray.model.backbones import esm2_config

    with torch.device("meta"):
        built = EsmModel(esm2_config(KNOWN_BACKBONES[name].size), add_pooling_layer=False)
    count = sum(p.numel() for n, p in built.named_parameters() if "contact_head" not in n)
    assert KNOWN_BACKBONES[name].parameters == pytest.approx(count, rel=0.02)
    number, unit = re.search(r"_(\d+)([MB])_", name).groups()  # type: ignore[union-attr]
    assert count == pytest.approx(float(number) * {"M": 1e6, "B": 1e9}[unit], rel=0.1)


def test_marks_of_esm_are_those_that_fair_esm_puts() -> None:
    esm = pytest.importorskip("esm", reason="fair-esm is not installed")
    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    _, _, tokens = alphabet.get_batch_converter()([("p", "MKV")])
    marks = (int(alphabet.prepend_bos), int(alphabet.append_eos))
    assert tokens.shape[1] == 3 + sum(marks) and marks == FAMILIES["esm2"].marks == FAMILIES["esm1b"].marks
    assert [esm_alphabet()[int(t)] for t in tokens[0]] == ["<cls>", "M", "K", "V", "<eos>"]


def test_sizes_and_parameters_agree() -> None:
    for name, known in KNOWN_BACKBONES.items():
        size = known.size
        positions = 40_000 * size.width if name == "prot_bert" else 0  # its table of positions, which is no layer's
        assert size.weights + positions == pytest.approx(known.parameters, rel=0.04)
