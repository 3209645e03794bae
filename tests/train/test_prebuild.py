"""Where compiled parts lie: apart for every environment."""

from __future__ import annotations

import sys

import pytest

from plmray.train import prebuild


def test_two_environments_of_one_host_do_not_share_compiled_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compiled each other's parts again in every run, and another Python could have loaded them."""
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    own = prebuild.extensions_folder()
    assert own == prebuild.extensions_folder()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "prefix", "/another/environment")
        assert prebuild.extensions_folder() != own
    with monkeypatch.context() as newer:
        newer.setattr(prebuild, "version", lambda name: "99.0")
        assert prebuild.extensions_folder() != own
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/given")
    assert str(prebuild.extensions_folder()) == "/given"
