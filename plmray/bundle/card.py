"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Iterator

from plmray.bundle.folder import BundleFacts
from plmray.config.catalog.adapters import ADAPTERS


def model_card(facts: BundleFacts) -> str:
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: BundleFacts) -> Iterator[str]:
    scores, backbone = facts.scores, facts.settings.backbone
    yield f"# {facts.name}: {facts.candidate_id}"
    yield ""
    yield f"Predicts {_what(facts)} from a protein's sequence. An ensemble of {len(facts.seeds)} seeds of one setting."
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| backbone | {backbone.name} ({facts.family}, {backbone.init}) |"
    yield f"| adapter | {facts.settings.adapter.kind} |"
    yield f"| head | {facts.settings.head.kind} |"
    yield f"| seeds | {', '.join(map(str, facts.seeds))} |"
    yield f"| validation {facts.metric}, mean over seeds | {_number(scores.get('mean'))} {_interval(scores, '')} |"
    yield f"| spread of single seeds (SD) | {_number(scores.get('seed_sd'))} |"
    yield f"| test {facts.metric}, mean over seeds | {_number(scores.get('test_mean'))} {_interval(scores, 'test_')} |"
    if scores.get("test_proteins_low") is not None:
        yield f"| the same, over other seeds and other proteins | {_interval(scores, 'test_proteins_')} |"
    for name, value in scores.get("test_scores", {}).items():
        if name != facts.metric:
            yield f"| test {name} | {_number(value)} |"
    yield f"| data (hash of what training saw) | {facts.data_hash[:16]} |"
    yield f"| software | {', '.join(f'{name} {version}' for name, version in facts.software.items())} |"
    yield ""
    yield "The scores are those of single seeds, averaged; the ensemble's own score was not measured."
    yield "Proteins unlike those of the training data may be predicted badly, and the spread over seeds does not tell."
    yield ""
    yield "## Use"
    yield ""
    yield "    plmray predict BUNDLE proteins.fasta -o predictions.csv"
    yield "    mlflow.pyfunc.load_model('BUNDLE').predict(table)        # a table with a column 'sequence'"
    if ADAPTERS[facts.settings.adapter.kind].by_peft:
        yield f"    PeftModel.from_pretrained(encoder, 'BUNDLE/seeds/{facts.seeds[0]}')   # the adapter alone"


def _what(facts: BundleFacts) -> str:
    unit = "each residue" if facts.level == "residue" else "the protein"
    return {
        "regression": f"a value of {unit}",
        "binary": f"whether {unit} is '{facts.classes[-1] if facts.classes else ''}'",
        "classification": f"one of {len(facts.classes)} classes of {unit} ({', '.join(facts.classes)})",
        "multilabel": f"which of {len(facts.classes)} labels {unit} has ({', '.join(facts.classes)})",
    }[facts.kind]


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _interval(scores: dict[str, float | None], prefix: str) -> str:
    low, high = scores.get(f"{prefix}low"), scores.get(f"{prefix}high")
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}] (95 % over seeds)"
