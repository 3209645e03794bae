"""export, predict and embed: a sweep's winner as a bundle, what it says of proteins, and encoders as they are."""

from __future__ import annotations

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
@click.argument("proteins", metavar="FASTA|CSV", type=FilePath)
@click.option("-o", "--out", type=FilePath, required=True, help="CSV to write; a stopped call goes on from it.")
def predict(bundle: Path, proteins: Path, out: Path) -> None:
    """Predict with a bundle: a row a protein or residue, the mean over seeds and their spread."""
    require("torch", "safetensors")
    from plmray.bundle.predict import predict_file

    count = predict_file(bundle, proteins, out, echo=lambda text: click.echo(text, err=True))
    click.echo(f"{out}: predictions of {count} proteins")


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
