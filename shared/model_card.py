"""The model card: an artefact's ``README.md``, written from its manifest for a human reader."""

import json
from collections.abc import Mapping

from shared.manifest import Manifest


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

{_metrics_table(manifest.metrics)}

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


def _line(text: str) -> str:
    """Keep text inside its table cell."""
    return " ".join(text.split()).replace("|", "\\|")
