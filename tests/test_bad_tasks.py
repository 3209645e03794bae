"""Bad residue labels, files, heads, adapters, backbones, recipes, bundles: a message with the remedy, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from plmray.cli import cli
from tests.examples import sweep_tree
from tests.model.families import write_checkpoint
from tests.test_bad_inputs import faults_of, refused_before_start, sweep_file

SHAPE = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
TINY = {"name": "tiny", "init": "random", "shape": SHAPE}
RESIDUE = {"files": "p.csv", "level": "residue", "kind": "classification"}
HEADER = "id,sequence,target,mask,set,validation\n"
ROWS = "a,MKVA,HHEC,1111,train,\nb,MKLA,HECC,1111,train,\nc,MKAA,HHEE,1111,train,True\nd,MKGA,EECC,1111,train,True\n"
VALUES = "a,MKVA,1 2 3 4,,train,\nb,MKLA,1 2 2 2,,train,\nc,MKAA,1 1 2 3,,train,True\nd,MKGA,3 2 1 1,,train,True\n"

# task, rows below the header, what the message says
LABELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "too few labels": (RESIDUE, ROWS + "e,MKVW,HHE,111,train,\n", "has 3 labels for 4 residues"),
    "too many labels": (RESIDUE, ROWS + "e,MKVW,HHECC,1111,train,\n", "has 5 labels for 4 residues"),
    "no labels": (RESIDUE, ROWS + "e,MKVW,,1111,train,\n", "has no labels; expected one for each residue"),
    "short mask": (RESIDUE, ROWS + "e,MKVW,HHEC,11,train,\n", "mask has 2 places for 4 residues"),
    "odd mask": (RESIDUE, ROWS + "e,MKVW,HHEC,11x1,train,\n", "mask holds 'x'; expected 1 (counts) or 0"),
    "unknown residue label": (RESIDUE, ROWS + "e,MKVW,HHQC,1111,train,True\n", "class 'Q' is in validation but absent"),
    "nothing counts": (RESIDUE, ROWS.replace("1111,train,\n", "0000,train,\n"), "no train residue counts"),
    "words as values": (
        RESIDUE | {"kind": "regression"},
        VALUES + "e,MKVW,1 2 x 3,,train,\n",
        "'x' is no finite",
    ),
    "endless value": (RESIDUE | {"kind": "regression"}, VALUES + "e,MKVW,1 2 inf 3,,train,\n", "'inf' is no finite"),
    "three classes as two": (RESIDUE | {"kind": "binary"}, ROWS, "binary needs two classes, training has 3"),
    "unknown positive": (
        {"files": "p.csv", "kind": "binary", "positive": "maybe"},
        "a,MKVA,yes,,train,\nb,MKLA,no,,train,\nc,MKAA,no,,train,True\nd,MKGA,yes,,train,True\n",
        "'maybe' is no class of training; its classes: no, yes",
    ),
    "no label at all": (
        {"files": "p.csv", "kind": "multilabel"},
        "a,MKVA,-,,train,\nb,MKLA,-,,train,\nc,MKAA,-,,train,True\nd,MKGA,-,,train,True\n",
        "no training protein has a label",
    ),
    "a stop": (RESIDUE, ROWS + "e,MKV*,HHEC,1111,train,\n", "a stop is no residue"),
    "a gap": (RESIDUE, ROWS + "e,MK-V,HHEC,1111,train,\n", "gaps belong to alignments"),
    "spaces": (RESIDUE, ROWS + "e,MK V,HHEC,1111,train,\n", "without spaces"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(case: str, tmp_path: Path) -> None:
    task, rows, message = LABELS[case]
    (tmp_path / "p.csv").write_text(HEADER + rows)
    file = sweep_file(tmp_path, sweep_tree(task={**task, "columns": {"id": "id"}}))
    assert any(message in fault["message"] for fault in faults_of(file)), faults_of(file)
    refused_before_start(file)


FASTA = (
    ">a SET=train\nMKVA\n>b SET=train\nMKLA\n>c SET=train VALIDATION=True\nMKAA\n>d SET=train VALIDATION=True\nMKGA\n"
)
STATES = ">a\nHHEC\n>b\nHECC\n>c\nHHEE\n>d\nEECC\n"
# files by name, changes of the task, what the message says
FILES: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "empty FASTA": ({"p.fasta": ""}, {}, "holds no proteins"),
    "text before the first header": ({"p.fasta": "MKV\n>a\nMKV\n"}, {}, "expected a header line beginning with '>'"),
    "not UTF-8": ({"p.fasta": "\udcff"}, {}, "is not UTF-8 text"),
    "labels of other proteins": ({"l.fasta": STATES.replace(">d", ">x")}, {}, "has no labels for 1 of 4 proteins"),
    "masks of other proteins": (
        {"m.fasta": STATES.replace(">a", ">q")},
        {"masks": "m.fasta"},
        "has no mask for 1 of 4 proteins",
    ),
    "lines that are no labels": ({"l.txt": "a 1, 2, 3, 4\n"}, {"labels": "l.txt"}, "expected 'id: value, value"),
    "no such labels": ({}, {"labels": "none.fasta"}, "no such file"),
    "labels of two files for one": ({}, {"labels": ["l.fasta", "l.fasta"]}, "labels needs the shape of files"),
    "labels of whole proteins": ({}, {"level": "protein"}, "labels belongs to level: residue"),
    "label sets of residues": ({}, {"kind": "multilabel"}, "labels whole proteins"),
    "a positive class of values": ({}, {"kind": "regression", "positive": "H"}, "positive belongs to kind: binary"),
}


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, tmp_path: Path) -> None:
    files, changes, message = FILES[case]
    for name, text in ({"p.fasta": FASTA, "l.fasta": STATES} | files).items():
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    task = {"files": "p.fasta", "labels": "l.fasta", "level": "residue", "kind": "classification"} | changes
    file = sweep_file(tmp_path, sweep_tree(task=task))
    assert any(message in fault["message"] for fault in faults_of(file)), faults_of(file)
    refused_before_start(file)


ONE: dict[str, Any] = {"space": {}, "search": {"candidates": 1}, "replicate": None}


def residue_task(**train: Any) -> dict[str, Any]:
    return sweep_tree(
        task=RESIDUE, train={"backbone": TINY, **train}, space={}, search={"candidates": 1}, replicate=None
    )


def protein_task(**train: Any) -> dict[str, Any]:
    return sweep_tree(
        train={"backbone": TINY, "epochs": 2, **train}, space={}, search={"candidates": 1}, replicate=None
    )


WIDER = {"batch_size": {"kind": "choice", "values": [8, 32]}}
SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a residue head for proteins": (protein_task(head={"kind": "cnn_seth"}), "train.head.kind", "of level residue"),
    "a protein head for residues": (
        residue_task(head={"kind": "light_attention"}),
        "train.head.kind",
        "of level protein",
    ),
    "half a batch for batch normalisation": (
        protein_task(head={"kind": "light_attention"}) | {"resources": {"micro_batch": 2}},
        "resources.micro_batch",
        "needs its whole batch",
    ),
    "batch normalisation of one": (
        protein_task(head={"kind": "light_attention"}, batch_size=1),
        "train.batch_size",
        "expected 2 or more",
    ),
    "light attention over workers": (
        protein_task(head={"kind": "light_attention"}) | {"resources": {"workers": 2}},
        "resources.engine",
        "in one process",
    ),
    "a method without a name": (protein_task(adapter={"kind": "peft"}), "train.adapter", "kind: peft needs its method"),
    "options of no method": (
        protein_task(adapter={"kind": "lora", "options": {"r": 2}}),
        "train.adapter",
        "method and options belong to kind: peft",
    ),
    "AdaLoRA with DeepSpeed": (
        protein_task(adapter={"kind": "adalora"}) | {"resources": {"workers": 2}},
        "train.adapter.kind",
        "which DeepSpeed keeps",
    ),
    "prefixes with checkpointing": (
        protein_task(adapter={"kind": "prefix"}) | {"resources": {"gradient_checkpointing": True}},
        "resources.gradient_checkpointing",
        "not supported with adapter prefix",
    ),
    "weights of no classes": (protein_task(class_weights="balanced"), "train.class_weights", "the task is regression"),
    "an unknown recipe": (protein_task(recipe="papre"), "train.recipe", "did you mean 'paper'"),
    "an area of values": (
        protein_task() | {"objective": {"metric": "auroc"}},
        "objective.metric",
        "judges binary or classification or multilabel",
    ),
    "half precision for Ankh": (
        protein_task(backbone="ankh-base", pooling="mean", precision="bf16"),
        "train.precision",
        "ankh encoders lose accuracy in bf16",
    ),
    "float16": (protein_task(precision="fp16"), "train.precision", "'fp32'"),
    "a known data set of another kind": (
        protein_task() | {"task": {"dataset": "disorder", "kind": "classification"}},
        "task.kind",
        "disorder is a regression task of level residue",
    ),
    "columns of a known data set": (
        protein_task() | {"task": {"dataset": "gb1", "columns": {"target": "fitness"}}},
        "task.columns",
        "gb1 has its own columns",
    ),
    "an unknown checkpoint": (protein_task(backbone="esm2_t7_8M"), "train.backbone", "did you mean"),
    "embeddings for residues": (
        residue_task(backbone={"name": "x", "embeddings": "e.parquet"}, adapter={"kind": "none"}),
        "train.backbone.embeddings",
        "need the encoder itself",
    ),
    "a larger batch of the space in parts": (
        protein_task(head={"kind": "light_attention"}) | {"resources": {"micro_batch": 8}, "space": WIDER},
        "resources.micro_batch",
        "use auto, or 32",
    ),
    "padding that depends on the micro-batch": (
        protein_task(pooling="padded_mean") | {"resources": {"micro_batch": 2}},
        "resources.micro_batch",
        "padded_mean needs its whole batch",
    ),
    "pooling of residues": (
        residue_task() | {"space": {"pooling": {"kind": "choice", "values": ["cls", "mean"]}}},
        "space.pooling",
        "residues are not pooled",
    ),
    "dropout of no stream": (
        protein_task(adapter={"kind": "peft", "method": "loha", "options": {"rank_dropout": 0.5}}),
        "train.adapter.options",
        "draw from no stream",
    ),
    "positions beyond the table": (
        protein_task(backbone="esm1b_t33_650M_UR50S") | {"task": {"dataset": "landscape", "max_length": 3000}},
        "task.max_length",
        "has positions for 1022 residues",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(case: str, tmp_path: Path) -> None:
    tree, key, message = SETTINGS[case]
    (tmp_path / "p.csv").write_text(HEADER + ROWS)
    (tmp_path / "e.parquet").write_bytes(b"")
    file = sweep_file(tmp_path, tree)
    assert any(fault["key"] == key and message in fault["message"] for fault in faults_of(file)), faults_of(file)
    refused_before_start(file)


def test_a_checkpoint_that_cannot_be_downloaded_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = sweep_file(tmp_path, protein_task(backbone="nobody/nothing-here", pooling="mean"))
    done = CliRunner().invoke(cli, ["run", str(file), "-y", "--local"])
    assert done.exit_code == 2
    assert "'nobody/nothing-here' could not be loaded" in done.output and "give its folder" in done.output


def test_a_tokenizer_of_words_is_refused(tmp_path: Path) -> None:
    """ProtT5's tokenizer without spaces, as a family named wrongly would read it."""
    from plmray.config.fields.train import BackboneSpec
    from plmray.errors import SetupError
    from plmray.model.backbones import load_tokenizer

    write_checkpoint("bert", tmp_path / "bert")
    text = (tmp_path / "bert" / "tokenizer.json").read_text()
    (tmp_path / "bert" / "tokenizer.json").write_text(text.replace('"W"', '"w"'))
    with pytest.raises(SetupError, match="no token for \\['W'\\]"):
        load_tokenizer(BackboneSpec(name="bert"), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.fasta", "", "holds no proteins"),
        ("p.fasta", ">a\nMKV\n>a\nMKL\n", "id 'a' stands twice"),
        ("p.fasta", ">a\nmkv\n", "use upper case"),
        ("p.fasta", ">\nMKV\n", "a protein has no id"),
        ("p.csv", "id,colour\na,MKV\n", "has no column 'sequence'"),
        ("p.doc", "MKV", "expected .fasta, .csv, .tsv or .xlsx"),
    ],
)
def test_proteins_to_predict(name: str, text: str, message: str, tmp_path: Path) -> None:
    facts = {"version": 2}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(facts | minimal_facts()))
    (tmp_path / name).write_text(text)
    done = CliRunner().invoke(cli, ["predict", "bundle", name, "-o", "out.csv"])
    assert done.exit_code == 2 and message in done.output
    assert not list(tmp_path.glob("*out.csv*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is no bundle"), ("{", "cannot be read"), ('{"version": 9}', "version 9"), ('{"version": 2}', "cannot be")],
)
def test_what_is_no_bundle(content: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "p.fasta").write_text(">a\nMKV\n")
    if content is not None:
        (tmp_path / "bundle" / "bundle.json").write_text(content)
    done = CliRunner().invoke(cli, ["predict", "bundle", "p.fasta", "-o", "out.csv"])
    assert done.exit_code == 2 and message in done.output


def test_a_gpu_size_that_is_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(sweep_file(tmp_path, sweep_tree())), "--gpu", "big"])
    assert done.exit_code == 2 and "expected one such as 24GB" in done.output


def minimal_facts() -> dict[str, Any]:
    text = {"name": "x", "candidate_id": "c", "kind": "regression", "level": "protein", "metric": "spearman"}
    hashes = {"family": "esm2", "precision": "fp32", "weights_hash": "", "data_hash": ""}
    lists = {"classes": [], "seeds": [1], "window": [0, None]}
    return text | hashes | lists | {"settings": {"backbone": TINY}, "tokenizer": {}}


def test_a_split_is_not_varied_where_proteins_are_left_out_after_the_draw(tmp_path: Path) -> None:
    task = {"dataset": "landscape", "validation_fraction": 0.2, "train_fraction": 0.5}
    tree = sweep_tree(task=task, replicate={"top": 1, "seeds": [101, 102], "vary": ["split"]})
    found = faults_of(sweep_file(tmp_path, tree))
    assert any("left out after the draw" in fault["message"] for fault in found), found


def test_a_method_can_be_searched_against_lora(tmp_path: Path) -> None:
    from plmray.config.load import load_sweep

    kinds = {"kind": "choice", "values": ["lora", "peft"]}
    methods = {"kind": "choice", "values": ["loha", "hra"], "when": {"adapter.kind": "peft"}}
    tree = sweep_tree(space={"adapter.kind": kinds, "adapter.method": methods})
    assert set(load_sweep(sweep_file(tmp_path, tree)).spec.space) == {"adapter.kind", "adapter.method"}
