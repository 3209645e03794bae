from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from plmray.config.fields.space import Domain, Space

DOMAINS = {
    "kind": {"kind": "choice", "values": ["none", "lora"]},
    "rank": {"kind": "ordinal", "values": [2, 4, 8], "when": {"kind": "lora"}},
    "lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "width": {"kind": "int", "low": 8, "high": 32, "step": 8},
}


def space(**domains: object) -> Space:
    adapter: TypeAdapter[object] = TypeAdapter(dict[str, Domain])
    return Space(adapter.validate_python(domains))  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1))
def test_draws_lie_in_their_domains_and_respect_conditions(seed: int) -> None:
    draw = space(**DOMAINS).sample(np.random.default_rng(seed))
    assert ("rank" in draw) == (draw["kind"] == "lora")
    assert draw.get("rank", 2) in (2, 4, 8)
    assert 1e-4 <= float(draw["lr"]) <= 1e-2
    assert draw["width"] in (8, 16, 24, 32)


def test_log_draws_are_even_over_decades() -> None:
    own, rng = space(**DOMAINS), np.random.default_rng(0)
    draws = [float(own.sample(rng)["lr"]) for _ in range(2000)]
    assert abs(np.mean(np.array(draws) < 1e-3) - 0.5) < 0.04


def test_grid_leaves_out_what_a_condition_switches_off() -> None:
    points = list(space(kind=DOMAINS["kind"], rank=DOMAINS["rank"]).grid())
    assert points == [
        {"kind": "none"},
        {"kind": "lora", "rank": 2},
        {"kind": "lora", "rank": 4},
        {"kind": "lora", "rank": 8},
    ]


def test_order_in_the_file_does_not_matter_for_conditions() -> None:
    reversed_space = space(rank=DOMAINS["rank"], kind=DOMAINS["kind"])
    assert list(reversed_space.domains) == ["kind", "rank"]


def test_even_points_are_drawn_as_blind_draws_are() -> None:
    """The same values as often: quantiles of both agree, on every scale and under conditions."""
    own, rng = space(**DOMAINS), np.random.default_rng(0)
    blind = [own.sample(rng) for _ in range(4000)]
    even = [own.at(list(rng.uniform(size=len(own)))) for _ in range(4000)]
    for key in DOMAINS:
        values = [[draw.get(key) for draw in draws] for draws in (blind, even)]
        shares = [np.mean([value is None for value in drawn]) for drawn in values]
        assert abs(shares[0] - shares[1]) < 0.04
        known = [[value for value in drawn if value is not None] for drawn in values]
        if isinstance(known[0][0], str):
            assert abs(known[0].count("lora") / len(known[0]) - known[1].count("lora") / len(known[1])) < 0.04
        else:
            logs = [np.log(np.array(drawn, dtype=float)) for drawn in known]
            assert abs(logs[0].mean() - logs[1].mean()) < 0.1 * logs[0].std()
            assert logs[0].std() == pytest.approx(logs[1].std(), rel=0.05)
    for draw in even:
        assert all(own.domains[key].contains(value) for key, value in draw.items())
