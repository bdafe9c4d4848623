"""The model card: an artefact's ``README.md``, written from its manifest for a human reader."""

import json
from collections.abc import Mapping

from shared.manifest import Manifest

_MISSING = "missing."
_MISSING_FIGURES = ("recall@20", "ndcg@20")


def model_card(manifest: Manifest, width: int) -> str:
    """Write the card as Markdown; ``width`` is the length of an embedding."""
    dataset = manifest.dataset
    split = dataset.split.kind + ("" if dataset.split.seed is None else f", seed {dataset.split.seed}")
    return f"""---
library_name: mts4mm
tags: [recommendation, multimodal, knowledge-distillation]
---

# {_line(dataset.name)}, version {manifest.version}

The student of a multi-teacher distillation: one embedding a user and one an item, {width} numbers each.
The score of an item for a user is the inner product of their embeddings.

| | |
|---|---|
| created | {manifest.created.isoformat(timespec="seconds")} |
| code revision | {_line(manifest.code_revision or "unknown")} |
| seed | {manifest.seed} |
| dataset | {_line(dataset.name)}, fingerprint {_line(dataset.fingerprint)} |
| users | {dataset.users:,} |
| items | {dataset.items:,} |
| interactions | {dataset.interactions:,} |
| split | {_line(split)} |

## Metrics

{_metrics_table({name: value for name, value in manifest.metrics.items() if not name.startswith(_MISSING)})}
{_missing_content(manifest.metrics)}
## Recipe

```json
{json.dumps(manifest.recipe, indent=2, sort_keys=True, ensure_ascii=False)}
```

## Use and limits

Made to rank the items above for the users above. Users without training interactions have no taste that was
learnt: answer them by popularity. Items that came after the training are unknown to it. The training
interactions are part of this folder: treat it as you treat the data it came from.

Load it with `shared.artifact.load_path`, which checks every file against `manifest.json`; nothing here is
executable and nothing is unpickled.
"""


def _metrics_table(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "None were recorded."
    rows = [f"| {_line(name)} | {value:.6g} |" for name, value in sorted(metrics.items())]
    return "\n".join(["| metric | value |", "|---|---|", *rows])


def _missing_content(metrics: Mapping[str, float]) -> str:
    """A section on what the student makes of items without content; empty if that was not measured."""
    suffix = f".{_MISSING_FIGURES[0]}"
    shares = [
        name.removeprefix(_MISSING).removesuffix(suffix)
        for name in metrics
        if name.startswith(_MISSING) and name.endswith(suffix)
    ]
    if not shares:
        return ""
    rows = []
    for share in sorted(shares, key=float):
        figures = (metrics.get(f"{_MISSING}{share}.{figure}") for figure in _MISSING_FIGURES)
        rows.append(" | ".join([f"| {float(share):.0%}", *("-" if v is None else f"{v:.6g}" for v in figures)]) + " |")
    table = "\n".join([f"| content missing | {' | '.join(_MISSING_FIGURES)} |", "|---|---|---|", *rows])
    return f"""
## With content missing

The student alone, without what the linear teacher adds, on the test split: of each modality the content of so many
items was hidden, drawn at random, after the training.

{table}
"""


def _line(text: str) -> str:
    """Keep text inside its table cell."""
    return " ".join(text.split()).replace("|", "\\|")
