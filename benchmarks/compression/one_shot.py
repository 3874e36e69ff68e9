"""Pruning MiniLM once, without labels: how near its sentence embeddings stay.

    python benchmarks/compression/one_shot.py --data DIR [--encoder DIR]   # every run and the table
    python benchmarks/compression/one_shot.py --markdown                   # the page's table alone

DIR has sst2_train.tsv, some of whose sentences calibrate, and sst2_dev.tsv, whose first sentences
are embedded: the mean of their last hidden states. Finished runs are rows of
benchmarks/results/compression/one_shot.csv and are not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from intervals import paired_difference
from ledger import Ledger
from progress import Report
from sst2_data import Batch, Sentences, encoder_folder, read
from study_cli import MARKDOWN, StudyCli, chosen
from study_errors import DataError
from study_runs import run
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

import espalier
from espalier import Recipe

METHODS = ("magnitude", "wanda", "sparsegpt", "least-squares")
DENSITIES = (0.5, 0.3, 0.2)
PATTERNS = ("column-balanced", "fine-grained")
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Setting:
    """density: share of the encoder's matrices kept, the same of each."""

    method: str
    density: float
    pattern: str
    calibration: int = 128
    sentences: int = 200

    def recipe(self) -> Recipe:
        scores = {name: {"score": name, "method": "one-shot"} for name in METHODS[:2]}
        goals = {"density": self.density, "pattern": self.pattern}
        parts = scores.get(self.method, {"method": self.method})
        return Recipe(density=1.0, arithmetic="float", layers={"encoder.*": goals}, **parts)

    def values(self) -> dict[str, object]:
        """As columns of the table."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.method}, {self.density:.0%}, {self.pattern}"


def settings() -> list[Setting]:
    """Both patterns by the methods that take seconds, then the hardware's by least squares too."""
    pairs = [(method, pattern) for method in METHODS[:3] for pattern in PATTERNS]
    return [
        Setting(method=method, density=density, pattern=pattern)
        for method, pattern in [*pairs, (METHODS[3], PATTERNS[0])]
        for density in DENSITIES
    ]


class Study:
    """The packaged encoder as it is, and the sentences."""

    def __init__(self, data: Path, encoder: Path | None, ledger: Ledger) -> None:
        self.folder, self.ledger = encoder_folder(encoder), ledger
        self.split = read(data, self.folder)
        self.model = load(self.folder)

    def finish(self, setting: Setting, _: Report) -> None:
        """One run, to its row."""
        training, start = self.split.training, time.monotonic()
        order = np.random.default_rng(1).permutation(len(training))[: setting.calibration]
        calibration = [batch[:2] for batch in by_length(training.some(torch.from_numpy(order)))]
        small = espalier.compress(self.model, setting.recipe(), calibration=calibration)
        seconds = time.monotonic() - start
        sentences = self.split.test.some(torch.arange(setting.sentences))
        exact, found = (embeddings(model, sentences) for model in (self.model, small))
        cosines = cosine_similarity(found, exact).numpy()
        inside = [m for m in small.espalier_report.matrices if m.name.startswith("encoder.")]
        row = {
            "kept": sum(m.kept for m in inside) / sum(m.size for m in inside),
            "stored": sum(m.entries for m in inside) / sum(m.size for m in inside),
            "mean_cosine": float(cosines.mean()),
            "least_cosine": float(cosines.min()),
            "rank_agreement": rank_agreement(found, exact),
            "same_nearest": same_nearest(found, exact),
        }
        row = {name: round(value, 5) for name, value in row.items()}
        self.ledger.add(setting.values(), row | {"seconds": round(seconds)}, {"cosines": cosines})


def load(folder: Path) -> nn.Module:
    """The encoder. Raises DataError without transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from transformers import BertModel
    except ImportError as error:
        raise DataError("this study needs transformers: pip install transformers") from error
    return BertModel.from_pretrained(folder).eval()


def by_length(sentences: Sentences) -> list[Batch]:
    """Batches of similar lengths."""
    lengths = torch.tensor([len(x) for x in sentences.tokens])
    order = lengths.argsort(stable=True)
    return [sentences.padded(index) for index in order.split(BATCH)]


@torch.no_grad()
def embeddings(model: nn.Module, sentences: Sentences) -> Tensor:
    """Mean of the last hidden states [sentences, C], in the sentences' order."""
    means, order = [], []
    for batch in by_length(sentences):
        states = model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        mask = batch.mask[:, :, None]
        means.append((states * mask).sum(1) / mask.sum(1))
        order += batch.rows
    return torch.cat(means)[torch.tensor(order).argsort()]


def similarities(found: Tensor) -> Tensor:
    """Cosines between all sentences [N, N]."""
    unit = normalize(found, dim=1)
    return unit @ unit.T


def rank_agreement(found: Tensor, exact: Tensor) -> float:
    """Spearman's correlation of the similarities of all pairs of sentences."""
    above = torch.ones(len(exact), len(exact)).triu(1).bool()
    ranks = [similarities(each)[above].argsort().argsort().double() for each in (found, exact)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def same_nearest(found: Tensor, exact: Tensor) -> float:
    """Share of the sentences whose nearest other sentence is the same."""
    nearest = [similarities(each).fill_diagonal_(-2).argmax(1) for each in (found, exact)]
    return float((nearest[0] == nearest[1]).float().mean())


def markdown(ledger: Ledger) -> str:
    """The page's table: intervals over sentences, differences to fine-grained pruning."""
    lines = [
        "| method, kept | stored | cosine to float | least | ranks | same nearest | "
        "cosine, minus fine-grained | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {(r["method"], r["density"], r["pattern"]): r for r in ledger.rows()}
    for (method, density, pattern), row in rows.items():
        name = f"{method}, {float(density):.0%}, {pattern}"
        cells = [name, f"{float(row['stored']):.3f}", f"{float(row['mean_cosine']):.4f}"]
        cells += [f"{float(row['least_cosine']):.3f}", f"{float(row['rank_agreement']):.4f}"]
        cells += [f"{float(row['same_nearest']):.1%}"]
        other = rows.get((method, density, PATTERNS[1]))
        found = [r and ledger.predictions(r) for r in (row, other)]
        cells.append("")
        if pattern == PATTERNS[0] and all(found):
            d = paired_difference(*(each["cosines"] for each in found))
            cells[-1] = f"{d.value:+.4f} [{d.low:.4f}, {d.high:.4f}]"
        lines.append(f"| {' | '.join([*cells, row['seconds']])} |")
    return "\n".join(lines)


CLI = StudyCli(
    name="one_shot",
    description=__doc__,
    files="sst2_train.tsv and sst2_dev.tsv",
    views={"markdown": (MARKDOWN, lambda ledger, _: markdown(ledger))},
)


def main(argv: list[str] | None = None) -> int:
    """Run, and print the table; 2 for an error."""
    parser = CLI.parser()
    parser.add_argument(
        "--encoder", type=Path, metavar="DIR", help="MiniLM's folder; default: the package's"
    )
    return CLI.main(parser.parse_args(argv), act)


def act(wishes: argparse.Namespace, ledger: Ledger) -> int:
    study = Study(wishes.data, wishes.encoder, ledger)
    run(chosen(settings(), wishes.only), ledger, study.finish)
    print(markdown(ledger))
    return 0


if __name__ == "__main__":
    sys.exit(main())
