"""Bad files, YAML and data: each a message that names the place and the remedy, exit code 2, nothing started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from plmray.cli import cli
from tests.examples import sweep_tree

Change = Callable[[dict[str, Any]], None]


def put(*place: str, value: Any) -> Change:
    def change(tree: dict[str, Any]) -> None:
        for part in place[:-1]:
            tree = tree.setdefault(part, {})
        tree[place[-1]] = value

    return change


SPEC_FAULTS: dict[str, tuple[Change, str, str]] = {
    "unknown key": (put("train", "epoch", value=3), "train.epoch", "did you mean 'epochs'"),
    "unknown section": (put("sarch", value={}), "sarch", "did you mean 'search'"),
    "wrong type": (put("train", "epochs", value="many"), "train.epochs", "found 'many', expected a whole number"),
    "fraction of an epoch": (put("train", "epochs", value=2.5), "train.epochs", "whole number"),
    "negative rate": (put("train", "optimizer", "lr", value=-0.1), "train.optimizer.lr", "greater than 0"),
    "unknown metric": (put("objective", value={"metric": "spearmann"}), "objective.metric", "'spearman'"),
    "metric of another task": (put("objective", value={"metric": "accuracy"}), "objective.metric", "classification"),
    "unknown sampler": (put("search", "sampler", value="tpee"), "search.sampler", "did you mean 'tpe'"),
    "unknown scheduler": (put("search", "scheduler", value="ashaa"), "search.scheduler", "did you mean 'asha'"),
    "CMA-ES with pruning": (
        put("search", value={"candidates": 3, "sampler": "cmaes", "scheduler": "asha"}),
        "search",
        "learns nothing from pruned",
    ),
    "no candidates": (put("search", value={"sampler": "random"}), "search", "candidates is missing"),
    "a seed twice": (put("search", "seeds", value=[1, 1]), "search", "seed 1 is listed twice"),
    "negative seed": (put("search", "seeds", value=[-1]), "search.seeds.0", "greater than or equal to 0"),
    "search seed used again": (put("replicate", "seeds", value=[1, 101]), "replicate.seeds", "Use fresh seeds"),
    "more winners than candidates": (put("replicate", "top", value=9), "replicate.top", "at most search.candidates"),
    "unknown allocation": (put("replicate", "allocation", value="racing"), "replicate.allocation", "'adaptive'"),
    "adaptive without a budget": (put("replicate", "allocation", value="adaptive"), "replicate", "needs budget"),
    "adaptive with one candidate": (
        put("replicate", value={"top": 1, "seeds": [9], "allocation": "adaptive", "budget": {"trials": 9}}),
        "replicate",
        "top is 1, expected 2+",
    ),
    "a budget too small to begin": (
        put("replicate", value={"top": 3, "seeds": [9], "allocation": "adaptive", "budget": {"trials": 5}}),
        "replicate",
        "fewer than two for each of 3",
    ),
    "a budget for a fixed grid": (
        put("replicate", "budget", value={"trials": 9}),
        "replicate",
        "budget belongs to allocation: adaptive",
    ),
    "confirming a fixed grid": (put("replicate", "confirm", value=3), "replicate", "confirm belongs to allocation"),
    "a stream varied twice": (put("replicate", "vary", value=["init", "init"]), "replicate", "a stream twice"),
    "varying with one seed": (
        put("replicate", value={"top": 1, "seeds": [9], "vary": ["init"]}),
        "replicate",
        "vary needs two seeds",
    ),
    "varying a split that is given": (
        put("replicate", "vary", value=["split"]),
        "replicate.vary",
        "validation_fraction",
    ),
    "an unknown stream": (put("replicate", "vary", value=["weather"]), "replicate.vary.0", "'init'"),
    "packing what shares nothing": (
        lambda tree: (
            put("resources", value={"engine": "packed"})(tree),
            put("train", "adapter", value={"kind": "full"})(tree),
        )[0],
        "resources.engine",
        "nothing to share",
    ),
    "packing several workers": (put("resources", value={"engine": "packed", "workers": 2}), "resources", "one process"),
    "standardizing what changes": (
        put("train", "head", value={"standardize": True}),
        "train.head.standardize",
        "adapter lora changes them",
    ),
    "more layers to adapt than there are": (
        put("train", "adapter", value={"layers": 3}),
        "train.adapter.layers",
        "tiny has 1",
    ),
    "embeddings that are not there": (
        put("train", "backbone", value={"name": "given", "embeddings": ["nowhere.parquet"]}),
        "train.backbone",
        "no such embeddings file",
    ),
    "embeddings of random weights": (
        put("train", "backbone", "embeddings", value=["nowhere.parquet"]),
        "train.backbone",
        "embeddings stand for the backbone",
    ),
    "unknown parameter": (
        put("space", value={"optimizer.lrr": {"kind": "float", "low": 0.1, "high": 0.2}}),
        "space.optimizer.lrr",
        "did you mean 'optimizer.lr'",
    ),
    "searching the seed": (
        put("space", value={"seed": {"kind": "int", "low": 0, "high": 9}}),
        "space.seed",
        "never searched",
    ),
    "bounds swapped": (
        put("space", value={"optimizer.lr": {"kind": "float", "low": 0.2, "high": 0.1}}),
        "space.optimizer.lr",
        "Swap them",
    ),
    "logarithm of zero": (
        put("space", value={"optimizer.lr": {"kind": "float", "low": 0.0, "high": 0.1, "log": True}}),
        "space.optimizer.lr",
        "low above 0",
    ),
    "unknown domain": (
        put("space", value={"optimizer.lr": {"kind": "flaot", "low": 0.1, "high": 0.2}}),
        "space.optimizer.lr",
        "float",
    ),
    "value that does not fit": (
        put("space", value={"adapter.rank": {"kind": "choice", "values": [4, "big"]}}),
        "space.adapter.rank",
        "found 'big'",
    ),
    "a choice twice": (
        put("space", value={"adapter.rank": {"kind": "choice", "values": [4, 4]}}),
        "space.adapter.rank",
        "listed twice",
    ),
    "condition on nothing": (
        put("space", value={"adapter.rank": {"kind": "choice", "values": [4], "when": {"adapter.kin": "lora"}}}),
        "space.adapter.rank.when.adapter.kin",
        "did you mean 'adapter.kind'",
    ),
    "condition that never holds": (
        put("space", value={"adapter.rank": {"kind": "choice", "values": [4], "when": {"adapter.kind": "full"}}}),
        "space.adapter.rank.when.adapter.kind",
        "fixed at 'lora'",
    ),
    "conditions in a circle": (
        put(
            "space",
            value={
                "adapter.rank": {"kind": "choice", "values": [4], "when": {"adapter.alpha": 1}},
                "adapter.alpha": {"kind": "choice", "values": [1], "when": {"adapter.rank": 4}},
            },
        ),
        "space.adapter.alpha.when",
        "depends on itself",
    ),
    "grid without a step": (put("search", "sampler", value="grid"), "space.optimizer.lr", "needs a step"),
    "unknown backbone": (put("train", "backbone", value="esm2_t6_8M"), "train.backbone", "esm2_t6_8M_UR50D"),
    "random weights of no shape": (
        put("train", "backbone", value={"name": "mine", "init": "random"}),
        "train.backbone",
        "needs a shape",
    ),
    "heads that do not divide": (
        put("train", "backbone", "shape", value={"layers": 1, "width": 18, "heads": 4, "feed_forward": 8}),
        "train.backbone.shape",
        "even multiple",
    ),
    "no backbone folder": (put("train", "backbone", value="./nowhere"), "train.backbone", "no config.json"),
    "two workers of one process": (
        put("resources", value={"engine": "torch", "workers": 2}),
        "resources",
        "use engine: deepspeed",
    ),
    "offload without stage": (
        put("resources", value={"deepspeed": {"stage": 0, "offload_optimizer": True}}),
        "resources.deepspeed",
        "needs stage 1, 2 or 3",
    ),
    "parameters off at stage 2": (
        put("resources", value={"deepspeed": {"stage": 2, "offload_parameters": True}}),
        "resources.deepspeed",
        "needs stage 3",
    ),
    "name with a path": (put("name", value="../elsewhere"), "name", "no folder name"),
    "unknown data set": (put("task", value={"dataset": "gb2"}), "task.dataset", "did you mean 'gb1'"),
    "two sources of data": (put("task", value={"dataset": "gb1", "files": "x.csv"}), "task", "one of the two"),
    "no such data file": (put("task", value={"files": "nowhere.csv"}), "task.files", "no such file"),
    "window backwards": (put("task", value={"dataset": "gb1", "window": [9, 3]}), "task", "[first, last]"),
    "rungs over epochs": (
        put("search", value={"candidates": 2, "scheduler": "asha", "min_epochs": 9}),
        "search.min_epochs",
        "at most train.epochs",
    ),
    "searching the precision": (
        put("space", value={"precision": {"kind": "choice", "values": ["fp32", "bf16"]}}),
        "space.precision",
        "in one precision",
    ),
    "given value outside its domain": (
        put("search", "given", value=[{"optimizer.lr": 0.5}]),
        "search.given.0.optimizer.lr",
        "is not in its domain",
    ),
    "labels as backbones": (
        put("space", value={"backbone.name": {"kind": "choice", "values": ["esm2_t6_8M_UR50D", "tiny"]}}),
        "space.backbone.name",
        "names are only labels",
    ),
    "negative GPUs": (put("resources", value={"gpus_per_trial": -1.0}), "resources.gpus_per_trial", "or equal to 0"),
    "float64 in DeepSpeed": (
        lambda tree: (
            put("train", "precision", value="fp64")(tree),
            put("resources", value={"engine": "deepspeed"})(tree),
        )[0],
        "train.precision",
        "float32 at most",
    ),
}

YAML_FAULTS: dict[str, tuple[str, str]] = {
    "empty file": ("", "is no sweep"),
    "a list": ("- a\n- b\n", "is no sweep"),
    "not YAML": ("name: [1, 2\n", "is not YAML"),
    "key twice": ("name: a\nname: b\n", "is given twice, first in line 1"),
    "1e-4 as text": ("name: a\ntrain:\n  optimizer: {lr: 1e-4}\n", "write 1.0e-4"),
    "no as false": ("name: a\ntrain:\n  epochs: no\n", "write true or false, or quote it"),
    "code": ("name: !!python/object/apply:os.system ['true']\n", "runs no code"),
    "merge key": ("base: &b {a: 1}\nname:\n  <<: *b\n", "merge keys"),
    "hexadecimal": ("name: a\ntrain: {epochs: 0x10}\n", "no plain decimal number"),
    "two documents": ("name: a\n---\nname: b\n", "holds 2 documents"),
}

_HEADER = "id,sequence,target,set,validation\n"
_GOOD = "a,MKV,1.0,train,False\nb,MKL,2.0,train,False\nc,MKA,1.5,train,True\nd,MKG,1.2,train,True\n"
_GOOD += "e,MKP,0.1,test,\nz,MKQ,0.3,test,\n"
DATA_FAULTS: dict[str, tuple[str, str]] = {
    "empty table": ("", "is empty; expected a header line"),
    "header alone": (_HEADER, "holds no proteins"),
    "no target column": ("id,sequence,colour\na,MKV,1\n", "has no column 'target'"),
    "column twice": ("id,sequence,target,target\na,MKV,1,1\n", "stands twice"),
    "ragged row": (_HEADER + "a,MKV,1.0\n", "has 3 cells, the header has 5"),
    "empty id": (_HEADER + _GOOD + ",MKW,1.0,train,\n", "row 8: the id is empty"),
    "duplicate id": (_HEADER + _GOOD + "a,MKW,1.0,train,\n", "id 'a' was used in row 2"),
    "illegal character": (_HEADER + _GOOD + "f,MK-V,1.0,train,\n", "holds '-' at 3"),
    "lower case": (_HEADER + _GOOD + "f,mkv,1.0,train,\n", "use upper case"),
    "empty sequence": (_HEADER + _GOOD + "f,,1.0,train,\n", "the sequence is empty"),
    "missing target": (_HEADER + _GOOD + "f,MKW,,train,\n", "row 8: target is empty"),
    "NaN target": (_HEADER + _GOOD + "f,MKW,nan,train,\n", "target is nan"),
    "text target": (_HEADER + _GOOD + "f,MKW,high,train,\n", "'high' is no number"),
    "infinite target": (_HEADER + _GOOD + "f,MKW,inf,train,\n", "is not finite"),
    "unknown split": (_HEADER + _GOOD + "f,MKW,1.0,holdout,\n", "split 'holdout' is unknown"),
    "validation in test": (_HEADER + _GOOD + "f,MKW,1.0,test,True\n", "one of them only"),
    "no validation": (_HEADER + "a,MKV,1.0,train,\nb,MKL,2.0,train,\n", "no validation proteins"),
    "no training": (_HEADER + "a,MKV,1.0,test,\nb,MKL,2.0,test,\n", "no train proteins"),
    "shared sequence": (_HEADER + _GOOD + "f,MKV,1.0,test,\n", "is also in train"),
    "constant targets": (_HEADER + _GOOD.replace("2.0", "1.0"), "all 2 train targets equal 1.0"),
    "one validation protein": (_HEADER + _GOOD.replace("d,MKG,1.2,train,True\n", ""), "cannot rank anything"),
    "over-long": (_HEADER + _GOOD + "f,MKVVVVVVVVVV,1.0,train,\n", "exceed 8 residues"),
}


def sweep_file(folder: Path, tree: dict[str, Any]) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def faults_of(file: Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, ["validate", str(file), "-f", "json"])
    assert done.exit_code == 2, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert found
    return found


def refused_before_start(file: Path) -> None:
    done = CliRunner().invoke(cli, ["run", str(file), "-y", "--storage-path", "runs"])
    assert done.exit_code == 2
    assert not Path("runs").exists()


@pytest.mark.parametrize("case", SPEC_FAULTS)
def test_spec_fault(case: str, tmp_path: Path) -> None:
    change, key, message = SPEC_FAULTS[case]
    tree = sweep_tree()
    change(tree)
    file = sweep_file(tmp_path, tree)
    found = faults_of(file)
    assert any(fault["key"] == key and message in fault["message"] for fault in found), found
    assert all(fault["file"] == str(file) and fault["line"] > 0 for fault in found)
    refused_before_start(file)


@pytest.mark.parametrize("case", YAML_FAULTS)
def test_yaml_fault(case: str, tmp_path: Path) -> None:
    text, message = YAML_FAULTS[case]
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    assert any(message in fault["message"] for fault in faults_of(file))
    refused_before_start(file)


@pytest.mark.parametrize("case", DATA_FAULTS)
def test_data_fault(case: str, tmp_path: Path) -> None:
    text, message = DATA_FAULTS[case]
    (tmp_path / "data.csv").write_text(text)
    task = {"files": "data.csv", "columns": {"id": "id"}, "max_length": 8}
    file = sweep_file(tmp_path, sweep_tree(task=task))
    found = faults_of(file)
    assert any(message in fault["message"] for fault in found), found
    refused_before_start(file)


def test_class_absent_from_training(tmp_path: Path) -> None:
    text = _HEADER + "a,MKV,x,train,\nb,MKL,y,train,\nc,MKA,z,train,True\nd,MKG,x,train,True\n"
    (tmp_path / "data.csv").write_text(text)
    task = {"files": "data.csv", "kind": "classification", "columns": {"id": "id"}}
    file = sweep_file(tmp_path, sweep_tree(task=task, objective={"metric": "accuracy"}))
    assert "class 'z' is in validation but absent from training" in faults_of(file)[0]["message"]


def test_all_faults_of_a_file_at_once(tmp_path: Path) -> None:
    tree = sweep_tree()
    put("train", "epochs", value="many")(tree)
    put("search", "sampler", value="tpee")(tree)
    put("nonsense", value=1)(tree)
    assert {fault["key"] for fault in faults_of(sweep_file(tmp_path, tree))} == {
        "train.epochs",
        "search.sampler",
        "nonsense",
    }


def test_fault_of_a_space_file_names_that_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("# a comment\noptimizer.lr: {kind: float, low: 0.2, high: 0.1}\n")
    file = sweep_file(tmp_path, sweep_tree(space="space.yaml"))
    fault = faults_of(file)[0]
    assert fault["file"].endswith("space.yaml")
    assert fault["line"] == 2


def test_a_parameter_of_two_space_files_is_refused(tmp_path: Path) -> None:
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("optimizer.lr: {kind: float, low: 0.1, high: 0.2}\n")
    found = faults_of(sweep_file(tmp_path, sweep_tree(space=["one.yaml", "two.yaml"])))
    assert "already a parameter from" in found[0]["message"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochz=3", "did you mean 'epochs'"),
        ("train.epochs", "expected KEY=VALUE"),
        ("train.optimizer.lr=1e-3", "write 1.0e-3"),
        ("train.epochs.more=3", "no fields below it"),
    ],
)
def test_bad_override(override: str, message: str, tmp_path: Path) -> None:
    file = sweep_file(tmp_path, sweep_tree())
    done = CliRunner().invoke(cli, ["plan", str(file), "--set", override])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "--set" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trial", "sweep.yaml", "--seed", "1", "--params", "{"], "is no JSON object"),
        (["trial", "sweep.yaml", "--seed", "1", "--params", '{"optimizer.lrr": 1}'], "did you mean 'optimizer.lr'"),
        (["trial", "sweep.yaml", "--seed", "1", "--params", '{"optimizer.lr": "x"}'], "expected a number"),
        (["report", "nowhere"], "is no sweep folder"),
        (["run", "nowhere.yaml"], "no such file"),
        (["run", "sweep.yaml", "-y", "--storage-path", "ftp://bucket/x"], "an address such as s3://bucket/prefix"),
        (["data", "fetch", "gb2"], "did you mean 'gb1'"),
    ],
)
def test_bad_command(arguments: list[str], message: str, tmp_path: Path) -> None:
    sweep_file(tmp_path, sweep_tree())
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert message in done.stderr
