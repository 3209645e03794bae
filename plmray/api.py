"""The verbs of the command line as functions, with tables of pandas where it prints them.

The command line calls what is here. ``plmray`` itself exports it, each name loaded when it is first asked for.
"""

from __future__ import annotations

import html
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plmray.config.load import LoadedSweep, as_override
from plmray.config.load import load_sweep as load
from plmray.storage import layout
from plmray.storage.home import local_copy
from plmray.storage.object_store import Location, is_store

if TYPE_CHECKING:
    import pandas as pd

    from plmray.bundle.model import Bundle
    from plmray.plan.plan import Plan
    from plmray.report.verdict import Verdict
    from plmray.sweep.driver import Outcome
    from plmray.trials.result import TrialResult

Say = Callable[[str], None]


def load_sweep(
    source: str | Path | Mapping[str, Any], *, data_root: str | Path | None = None, **overrides: Any
) -> Sweep:
    """Read a sweep: the path of its file, or its content as a mapping; its relative paths start in the working folder.

    ``overrides``: fields by dotted key, as ``**{"train.epochs": 3}``. ``data_root``: folder of known data sets
    (default: PLMRAY_DATA). Raises SpecError with every fault.
    """
    texts = [as_override(key, value) for key, value in overrides.items()]
    return read_sweep(Path(source) if isinstance(source, str) else source, texts, data_root)


def read_sweep(
    source: Path | Mapping[str, Any], overrides: Iterable[str] = (), data_root: str | Path | None = None
) -> Sweep:
    """The same with overrides as the command line has them, KEY=VALUE."""
    return Sweep(load(source, overrides), None if data_root is None else Path(data_root))


class Sweep:
    """A sweep as it is described, before it runs. ``spec``: all its settings."""

    def __init__(self, loaded: LoadedSweep, data_root: Path | None = None) -> None:
        self.loaded, self.data_root = loaded, data_root
        self.spec = loaded.spec

    def validate(self) -> list[str]:
        """Check the data too; returns what they are, in lines. Raises DataError with every fault."""
        from plmray.plan.prepare import data_lines

        return data_lines(self.loaded, self.data_root)

    def plan(self) -> Plan:
        """What the sweep would do: candidates, trials, ceilings, packs; ``print`` shows it."""
        from plmray.plan.prepare import plan_of

        return plan_of(self.loaded, self.data_root)[0]

    def __repr__(self) -> str:
        return f"<Sweep {self.spec.name}: {len(self.spec.space)} parameters, {self.spec.objective.metric}>"


def run(
    sweep: Sweep | str | Path | Mapping[str, Any],
    *,
    storage_path: Location = Path("plmray_runs"),
    resume: bool = False,
    local: bool = False,
    say: Say = print,
    **options: Any,
) -> SweepResults:
    """Run a sweep to its end, and open its results.

    ``storage_path``: a folder, or the address of an object store. ``resume``: go on with a sweep that was stopped.
    ``local``: in this process, without Ray. ``say`` hears each line of progress. ``options``: further ones of ``plmray
    run``: address, replay, replay_from, max_concurrent, wait_for_gpus. Raises PlmrayError before any trial runs where
    the sweep cannot be run; trials that fail do not raise: see ``SweepResults.outcome``.
    """
    from plmray.sweep.driver import run_sweep
    from plmray.sweep.options import RunOptions

    made = sweep if isinstance(sweep, Sweep) else load_sweep(sweep)
    place = Path(storage_path) if not is_store(storage_path) else storage_path
    chosen = RunOptions(storage_path=place, data_root=made.data_root, resume=resume, local=local, **options)
    outcome = run_sweep(made.loaded, chosen, say)
    found = open_sweep(outcome.address)
    found.outcome = outcome
    return found


def open_sweep(place: str | Path) -> SweepResults:
    """The results of a sweep folder, finished or not, or of one in an object store.

    Of a store a copy is made for as long as the results are held; a report that is written goes back to it then.
    Raises FolderError where there is none.
    """
    from plmray.sweep.folder.reader import require_folder

    with ExitStack() as stack:
        found = SweepResults(require_folder(stack.enter_context(local_copy(place, weights=True))), place)
        weakref.finalize(found, stack.pop_all().close)
    return found


class SweepResults:
    """What a sweep folder holds, as tables of pandas; read when first asked for. ``outcome``: how ``run`` ended."""

    outcome: Outcome | None = None

    def __init__(self, folder: Path, place: Location) -> None:
        from plmray.sweep.folder.reader import load_resolved

        self.folder, self.place = folder, place
        self.spec = load_resolved(folder)

    @cached_property
    def results(self) -> list[TrialResult]:
        """Every finished trial, as it was written."""
        from plmray.sweep.folder.reader import read_results

        return read_results(self.folder)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row a trial: ids, phase, seed, state, scores, ``param.…`` and ``provenance.…``."""
        from plmray.trials.table import results_table

        return results_table(self.results).to_pandas()

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """A row a candidate, best first, as ``plmray best`` prints them."""
        return _frame(candidate_rows(self.verdict))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row an evaluation: trial_id, candidate_id, seed, phase, step, epoch, score, losses."""
        from plmray.sweep.folder.reader import read_curves

        curves = read_curves(self.folder, [result.trial_id for result in self.results])
        known = ("trial_id", "candidate_id", "seed", "phase")
        rows = [{k: getattr(r, k) for k in known} | dict(e) for r in self.results for e in curves.get(r.trial_id, ())]
        return _frame(rows)

    @cached_property
    def test_outputs(self) -> pd.DataFrame:
        """What each replicate trial gave for each test protein or residue: ids of trial, candidate, protein; seed."""
        import pandas as pd

        parts = []
        for result in self.results:
            file = layout.trial_folder(self.folder, result.trial_id) / layout.TEST_OUTPUTS
            if file.is_file():
                part = pd.read_parquet(file)
                facts = {"trial_id": result.trial_id, "candidate_id": result.candidate_id, "seed": result.seed}
                parts.append(pd.concat([pd.DataFrame(facts, index=part.index), part], axis=1))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @cached_property
    def verdict(self) -> Verdict:
        """Candidates, seed spread, shares, cautions: all numbers of the report."""
        from plmray.report.write import judge_folder

        return judge_folder(self.folder, self.spec, self.results)

    @property
    def headline(self) -> str:
        """The verdict in a few sentences."""
        from plmray.report.headline import headline

        return headline(self.verdict)

    def report(
        self, out: str | Path | None = None, *, confidence: float = 0.95, families: str | Path | None = None
    ) -> list[Path]:
        """Write report.md, report.html and report.json to ``out`` (default: the sweep folder); returns their paths.

        ``families``: a table of test proteins that are kin (MMseqs2's clusters, or columns id and family), which the
        interval over proteins then takes together.
        """
        from plmray.report.proteins import read_families
        from plmray.report.write import judge_folder, write_report

        kin = read_families(Path(families)) if families is not None else None
        again = confidence != 0.95 or kin is not None
        judged = judge_folder(self.folder, self.spec, self.results, confidence, kin) if again else self.verdict
        target = Path(out) if out is not None else None
        return write_report(self.folder, judged, self.spec.name, self.results, target)

    def export(self, out: str | Path, candidate: str | None = None) -> Bundle:
        """Write a bundle of the best replicated candidate, or of ``candidate``, and open it."""
        from plmray.bundle.export import export

        export(self.folder, Path(out), candidate)
        return load_bundle(out)

    def __repr__(self) -> str:
        return f"<SweepResults {self.place}: {len(self.results)} trials of {self.spec.name}>"

    def _repr_html_(self) -> str:
        paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in self.headline.splitlines() if line)
        shown = self.candidates.head(10).to_html(index=False, float_format=lambda value: f"{value:.4g}", border=0)
        return f"<h3>{html.escape(self.spec.name)}</h3>{paragraphs}{shown}"


def candidate_rows(verdict: Verdict) -> list[dict[str, Any]]:
    """The candidates of a verdict, best first."""
    return [
        {
            "candidate_id": row.candidate_id,
            "origin": row.origin,
            "score.mean": row.mean.value,
            "score.sd": row.sd,
            "n_seeds": row.num_seeds,
            "p_best": row.p_best,
            "test.mean": row.test_mean.value,
            **{f"param.{key}": value for key, value in row.parameters.items()},
        }
        for row in verdict.candidates
    ]


def load_bundle(path: str | Path) -> Bundle:
    """A bundle that ``plmray export`` wrote; ``predict`` takes sequences, tables, or a FASTA or CSV file.

    Raises FolderError or SetupError where it or its encoder cannot be had.
    """
    from plmray.bundle.model import Bundle

    return Bundle(Path(path))


def embed(proteins: Any, backbone: str, *, pooling: Literal["mean", "cls"] = "mean") -> pd.DataFrame:
    """Embeddings by a pretrained encoder: id, sequence, embedding (a numpy row of its width) of each protein.

    ``proteins``: sequences, a mapping of id to sequence, a table with a column 'sequence' (and 'id'), or the path of a
    FASTA, CSV or TSV file. ``backbone``: a known name, a hub id, or a local folder. Raises DataError with every fault.
    """
    from plmray.bundle.embed import FrozenEncoder, embed_table
    from plmray.bundle.proteins import rows_from

    return embed_table(FrozenEncoder(backbone, pooling), rows_from(proteins))


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
