from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plmray.config.fields.train import OptimizerSpec
from plmray.errors import FolderError
from plmray.model.adapters import saved_config
from plmray.model.assemble import trainable_parameters
from plmray.model.backbones import load_encoder
from plmray.train import checkpoint
from plmray.train.engines import TorchEngine
from plmray.train.loop import Diverged, Training
from plmray.train.schedule import evaluation_steps, learning_rates
from tests.examples import CPU, tiny_data, tiny_model, tiny_sweep
from tests.train import conformance

SHAPE = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}


def training(folder: Path, seed: int = 1, precision: str = "fp32", micro: int | None = None, **train: Any) -> Training:
    base = {"backbone": {"name": "t", "init": "random", "shape": SHAPE}, "pooling": "mean", "epochs": 2}
    sweep = tiny_sweep(folder, train={**base, "optimizer": {"lr": 0.003}, **train})
    data, settings = tiny_data(sweep), sweep.spec.train
    model, streams = tiny_model(settings, data, seed)
    engine = TorchEngine(model, settings, data, precision=precision, device=CPU, micro_batch=micro)
    return Training(settings, data, engine, streams, "spearman")


def weights(run: Training) -> np.ndarray:
    return np.concatenate([tensor.flatten().double().numpy() for tensor in run.engine.state().values()])


def numbers(run: Training) -> list[tuple[float, ...]]:
    return [(e.step, e.epoch, e.train_loss, e.validation_loss, e.score, e.learning_rate) for e in run.evaluations()]


@pytest.mark.parametrize("adapter", ["none", "lora", "full"])
def test_the_same_trial_twice_is_bitwise_the_same(adapter: str, tmp_path: Path) -> None:
    settings = {"adapter": {"kind": adapter, "dropout": 0.1}, "head": {"dropout": 0.2}}
    one, two, other = (training(tmp_path, seed, **settings) for seed in (1, 1, 2))
    assert numbers(one) == numbers(two) != numbers(other)
    assert (weights(one) == weights(two)).all()


@pytest.mark.parametrize("micro", [1, 3, 5])
def test_micro_batches_do_not_change_the_numbers(micro: int, tmp_path: Path) -> None:
    """float64: to 1e-12. Dropout on, and 48 proteins in batches of 10, so that the last batch is short."""
    settings = {"adapter": {"kind": "lora", "dropout": 0.1}, "head": {"dropout": 0.2}, "batch_size": 10}
    whole = training(tmp_path, precision="fp64", **settings)
    cut = training(tmp_path, precision="fp64", micro=micro, **settings)
    np.testing.assert_allclose(numbers(cut), numbers(whole), atol=1e-12)
    np.testing.assert_allclose(weights(cut), weights(whole), atol=1e-12)


def test_training_learns_the_landscape(tmp_path: Path) -> None:
    run = training(tmp_path, adapter={"kind": "full"}, epochs=20)
    curve = list(run.evaluations())
    assert curve[-1].train_loss < 0.5 * curve[0].train_loss


def test_the_checkpoint_is_the_one_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    run = training(tmp_path, adapter={"kind": "full"}, epochs=12, optimizer={"lr": 0.01})
    curve = list(run.evaluations())
    best = min(curve, key=lambda evaluation: evaluation.validation_loss)
    assert run.best == best != curve[-1]
    run.engine.load_state(run.best_state or {})
    assert run.judge("validation") == pytest.approx((best.validation_loss, best.score), abs=1e-6)


def test_patience_stops_early(tmp_path: Path) -> None:
    run = training(tmp_path, adapter={"kind": "full"}, epochs=40, optimizer={"lr": 0.01}, patience=3)
    curve = list(run.evaluations())
    assert run.best is not None
    assert len([e for e in curve if e.step > run.best.step]) == 3
    assert curve[-1].epoch < 40


def test_a_loss_that_is_no_number_is_a_divergence(tmp_path: Path) -> None:
    run = training(tmp_path)
    with torch.no_grad():
        next(iter(trainable_parameters(run.engine.model).values())).fill_(math.inf)  # type: ignore[attr-defined]
    with pytest.raises(Diverged, match="a lower learning rate may help"):
        list(run.evaluations())


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, tight = training(tmp_path, precision="fp64"), training(tmp_path, precision="fp64")
    engine = tight.engine
    assert isinstance(engine, TorchEngine)
    inner = engine._losses

    def small_memory(step: Any, micro: Any) -> Any:
        if len(micro.batch.targets) > 3:
            raise torch.OutOfMemoryError("too large")
        return inner(step, micro)

    monkeypatch.setattr(engine, "_losses", small_memory)
    np.testing.assert_allclose(numbers(tight), numbers(expected), atol=1e-12)
    assert engine.provenance()["micro_batch"] == 2
    assert engine.provenance()["out_of_memory_halvings"] == 2


def test_gradient_checkpointing_keeps_the_numbers(tmp_path: Path) -> None:
    plain = training(tmp_path, adapter={"kind": "lora", "dropout": 0.1})
    data, settings = plain.data, plain.settings
    model, streams = tiny_model(settings, data)
    engine = TorchEngine(model, settings, data, precision="fp32", device=CPU, gradient_checkpointing=True)
    np.testing.assert_allclose(
        numbers(Training(settings, data, engine, streams, "spearman")), numbers(plain), atol=1e-5
    )


def test_bf16_is_near_float32(tmp_path: Path) -> None:
    exact, rough = numbers(training(tmp_path)), numbers(training(tmp_path, precision="bf16"))
    np.testing.assert_allclose([e[3] for e in rough], [e[3] for e in exact], rtol=0.02)
    assert rough != exact


def test_schedule_by_hand() -> None:
    steps = np.arange(10)
    linear = learning_rates(OptimizerSpec(lr=1.0, warmup=0.2), steps, 10)
    assert list(linear[:3]) == [0.5, 1.0, 1.0]
    assert linear[-1] == pytest.approx(1 / 8)
    assert learning_rates(OptimizerSpec(lr=1.0, schedule="cosine"), steps, 10)[5] == pytest.approx(0.5)
    assert (learning_rates(OptimizerSpec(lr=1.0, schedule="constant"), steps, 10) == 1.0).all()
    assert evaluation_steps(10, 3) == [3, 7, 10]
    assert evaluation_steps(2, 5) == [1, 2]


@pytest.mark.parametrize("adapter", ["none", "lora", "full"])
def test_saved_weights_come_back(adapter: str, tmp_path: Path) -> None:
    run = training(tmp_path, adapter={"kind": adapter})
    list(run.evaluations())
    state = run.engine.state()
    size = checkpoint.save(tmp_path / "adapter", state, None)
    assert size == sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    loaded = checkpoint.load(tmp_path / "adapter", state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    with pytest.raises(FolderError, match="has no weights 'nobody'"):
        checkpoint.load(tmp_path / "adapter", {"classifier.nobody": torch.zeros(1)})
    file = tmp_path / "adapter" / checkpoint.HEAD_FILE
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(FolderError, match="no readable weights"):
        checkpoint.load(tmp_path / "adapter", state)


@pytest.mark.parametrize("adapter", [{"rank": 3, "alpha": 5}, {"kind": "dora", "alpha": 8}, {"kind": "ia3"}])
def test_a_saved_adapter_loads_through_peft(adapter: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel

    run = training(tmp_path, adapter=adapter)
    list(run.evaluations())
    config = saved_config(run.settings.adapter, "esm2", 1)
    checkpoint.save(tmp_path / "adapter", run.engine.state(), config)
    state = run.engine.state()
    for name, tensor in checkpoint.load(tmp_path / "adapter", state).items():
        assert torch.equal(tensor, state[name])
    encoder = load_encoder(run.settings.backbone, Path())
    loaded = PeftModel.from_pretrained(encoder, str(tmp_path / "adapter")).eval()
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    model = run.engine.model  # type: ignore[attr-defined]
    with torch.no_grad():
        ours = model.encoder(input_ids=tokens).last_hidden_state
        theirs = loaded(input_ids=tokens).last_hidden_state
        plain = load_encoder(run.settings.backbone, Path())(input_ids=tokens).last_hidden_state
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, plain)


ONE_WORKER = [{"stage": 2}, {"stage": 3, "offload_optimizer": True, "offload_parameters": True}]
TWO_WORKERS = [{"stage": 0}, {"stage": 1}, {"stage": 2, "offload_optimizer": True}, {"stage": 3}]


@pytest.mark.parametrize(("world", "zero"), [(1, z) for z in ONE_WORKER] + [(2, z) for z in TWO_WORKERS])
def test_deepspeed_gives_the_numbers_of_torch(world: int, zero: dict[str, Any]) -> None:
    """Stated tolerance, float32 over two epochs with dropout and a short last batch: 2e-6 (measured 4e-7)."""
    expected = conformance.train(None, "lora")
    found = conformance.run(world, zero, "lora", micro_batch=3)
    assert conformance.largest_difference(expected, found) < 2e-6
    provenance = found["provenance"]
    assert provenance["engine_class"] == "DeepSpeedEngine"
    assert (provenance["zero_stage"], provenance["world_size"]) == (zero["stage"], world)
    assert (provenance["optimizer_class"] == "DeepSpeedCPUAdam") == zero.get("offload_optimizer", False)


def test_deepspeed_trains_residues_to_the_numbers_of_torch() -> None:
    """Masks leave micro-batches, and so workers, unlike numbers of residues; each still weighs the same."""
    expected = conformance.train(None, "lora", by_residue=True)
    found = conformance.run(2, {"stage": 2}, "lora", micro_batch=3, by_residue=True)
    assert conformance.largest_difference(expected, found) < 2e-6


def test_deepspeed_full_fine_tuning_gives_the_numbers_of_torch() -> None:
    expected = conformance.train(None, "full")
    found = conformance.run(2, {"stage": 2}, "full")
    assert conformance.largest_difference(expected, found) < 5e-6
