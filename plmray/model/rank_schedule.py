"""AdaLoRA beside its layers: the budget of ranks that shrinks as training goes on (Zhang et al. 2023).

peft's model object does both within HF Trainer's habits; the allocator is peft's own, the loop is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

START_FACTOR = 1.5  # ranks at the start, of those at the end
WARMUP, FINAL = 0.1, 0.3  # fractions of all steps with all ranks, and with the final ones
UPDATES = 20  # of the budget between the two


def adalora_options(rank: int, total_steps: int) -> dict[str, Any]:
    """peft's numbers for a run of ``total_steps``."""
    warmup, final = int(WARMUP * total_steps), int(FINAL * total_steps)
    return {
        "target_r": rank,
        "init_r": max(rank + 1, round(START_FACTOR * rank)),
        "total_step": total_steps,
        "tinit": warmup,
        "tfinal": final,
        "deltaT": max(1, (total_steps - warmup - final) // UPDATES),
    }


class RankSchedule:
    """Called by the engine: ``penalty`` before, ``after_update`` after every optimizer step, gradients still there."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        from peft.tuners.adalora.layer import RankAllocator

        self.model, self.config = model, config
        self.allocator = RankAllocator(model, config, "default")

    def penalty(self) -> Tensor:
        """Mean distance of the singular vectors from orthogonal ones, weighted as peft does."""
        vectors = [p if "lora_A" in n else p.T for n, p in self.model.named_parameters() if _is_vectors(n)]
        distances = [torch.norm(v @ v.T - torch.eye(len(v), device=v.device, dtype=v.dtype)) for v in vectors]
        penalty: Tensor = self.config.orth_reg_weight * torch.stack(distances).mean()
        return penalty

    def after_update(self, step: int) -> None:
        """``step``: 0-based."""
        last = self.config.total_step - self.config.tfinal
        if step < last:
            _, pattern = self.allocator.update_and_allocate(self.model, step)
            self.config.rank_pattern = pattern or self.config.rank_pattern
        elif step == last:
            _, pattern = self.allocator.update_and_allocate(self.model, step, force_mask=True)
            self.config.rank_pattern = pattern
            self.allocator.reset_ipt()
        elif self.config.rank_pattern:
            self.allocator.mask_using_rank_pattern(self.model, self.config.rank_pattern)


def _is_vectors(name: str) -> bool:
    return "lora_A.default" in name or "lora_B.default" in name
