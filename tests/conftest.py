"""Fixtures: where real data lie, and a sweep folder of one's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the suite's numbers are those of a CPU

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: PLMRAY_DATA, else ../shared/data beside the checkout."""
    root = Path(os.environ.get("PLMRAY_DATA") or ROOT.parent / "shared" / "data")
    if not (root / "gb1" / "three_vs_rest.csv").is_file():
        pytest.skip(f"no real data under {root}; set PLMRAY_DATA")
    return root


@pytest.fixture(scope="session")
def real_esm2() -> Path:
    """An ESM2 8M that this project did not make: PLMRAY_MODELS, else ../shared/models beside the checkout."""
    root = Path(os.environ.get("PLMRAY_MODELS") or ROOT.parent / "shared" / "models")
    folder = root / "esm2_8m_hemolytic"
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no real encoder in {folder}; set PLMRAY_MODELS")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """Small inputs made after what people bring: PLMRAY_CASES, else ../shared/cases beside the checkout."""
    root = Path(os.environ.get("PLMRAY_CASES") or ROOT.parent / "shared" / "cases")
    if not (root / "backbones").is_dir():
        pytest.skip(f"no cases under {root}; set PLMRAY_CASES")
    return root


@pytest.hookimpl(tryfirst=True)  # before the lanes are told apart
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray runs in one lane, one after the other."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in its own folder, writes its own MLflow store and inherits no Ray job or cluster."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PLMRAY_DATA"):
        monkeypatch.delenv(name, raising=False)
