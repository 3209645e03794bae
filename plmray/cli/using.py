"""export, predict and embed: a sweep's winner as a bundle, what it says of proteins, and encoders as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from plmray.cli.options import FilePath, require, sweep_folder_with_weights


@click.command()
@sweep_folder_with_weights
@click.option("--candidate", metavar="ID", help="Default: the best replicated candidate.")
@click.option("-o", "--out", type=FilePath, required=True, help="Folder to write.")
def export(folder: Path, candidate: str | None, out: Path) -> None:
    """Write the seeds of one candidate as a bundle: weights, tokens, labels, scores, model card."""
    require("torch", "safetensors")
    from plmray.bundle.export import export as write_bundle

    facts = write_bundle(folder, out, candidate)
    mean, spread = facts.scores.get("mean"), facts.scores.get("seed_sd")
    shown = f"{facts.metric} {mean:.4f}" if mean is not None else "no score"
    shown += f", seed SD {spread:.4f}" if spread is not None else ""
    click.echo(f"{out}: {facts.candidate_id}, {len(facts.seeds)} seed(s), {shown}")


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=FilePath)
@click.argument("proteins", metavar="FASTA|TABLE|-", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=FilePath, required=True, help="CSV to write; a stopped call goes on from it.")
@click.option("--sequence-column", metavar="NAME", help="Of a table (default: as in training, else by its name).")
@click.option("--id-column", metavar="NAME", help="Of a table.")
def predict(bundle: Path, proteins: Path, out: Path, sequence_column: str | None, id_column: str | None) -> None:
    """Predict with a bundle: a row a protein or residue, the mean over seeds and their spread; - reads from a pipe."""
    require("torch", "safetensors")
    from plmray.bundle.predict import predict_file

    given = (("sequence", sequence_column), ("id", id_column))
    named = {field: name for field, name in given if name is not None}
    with _spooled(proteins) as file:
        count = predict_file(bundle, file, out, echo=lambda text: click.echo(text, err=True), named=named or None)
    click.echo(f"{out}: predictions of {count} proteins")


@contextmanager
def _spooled(proteins: Path) -> Iterator[Path]:
    """The file; of standard input a copy, which is read twice: FASTA where it begins with '>', else a table."""
    if str(proteins) != "-":
        yield proteins
        return
    import sys
    import tempfile

    with tempfile.TemporaryDirectory(prefix="plmray-input-") as place:
        first = sys.stdin.readline()
        file = Path(place) / ("standard input.fasta" if first.startswith(">") else "standard input.csv")
        with file.open("w", encoding="utf-8") as copy:
            copy.write(first)
            for line in sys.stdin:
                copy.write(line)
        yield file


@click.command()
@click.argument("proteins", metavar="FASTA|CSV", type=FilePath)
@click.option("--backbone", required=True, metavar="NAME", help="A known name, a hub id, or a local folder.")
@click.option("--pooling", type=click.Choice(["mean", "cls"]), default="mean", show_default=True)
@click.option("-o", "--out", type=FilePath, required=True, help="Parquet file to write.")
def embed(proteins: Path, backbone: str, pooling: Any, out: Path) -> None:
    """Embed proteins with a pretrained encoder, in a file that backbone.embeddings of a sweep reads."""
    require("torch", "transformers")
    from plmray.bundle.embed import FrozenEncoder, embed_file

    encoder = FrozenEncoder(backbone, pooling)
    count = embed_file(encoder, proteins, out, lambda text: click.echo(text, err=True))
    click.echo(f"{out}: embeddings of {count} proteins, {encoder.width} wide, {encoder.precision}")
