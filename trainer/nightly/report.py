"""The report of a night: JSON for machines, HTML for people, a status and a metrics file for whoever watches.

<own>/reports/<night>.json, .html      what was done, judged and seen
<own>/status.json                      the last night in short; read by the console
<own>/metrics.prom                     the same for Prometheus's textfile collector
"""

import json
import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import durable
from trainer.dataset import TRAIN, SplitSpec, load_dataset
from trainer.evaluation import NO_ITEM, ranked_for
from trainer.nightly.candidate import Candidate, fresh_holdout
from trainer.nightly.contenders import challenger
from trainer.nightly.journal import COST, Journal, cost
from trainer.nightly.plots import curves, lines

SAMPLE_USERS = 6
SAMPLE_ITEMS = 10
HISTORY_ITEMS = 5
PAST_NIGHTS = 30
STATUS = "status.json"
CONTENDERS = ("challenger", "champion")
JUDGED_BY = "ndcg@20"

Document = dict[str, Any]


def write_report(own: Path, journal: Journal, outcome: str, reason: str) -> Path:
    """Write all of it, durably; returns the path of the JSON report. A dry run leaves status and metrics alone."""
    reports = own / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    document = _document(journal, outcome, reason)
    path = reports / f"{journal.name}.json"
    _write(path, document, past_nights(own))
    if not document["dry_run"]:
        write_status(own, document)
    return path


def write_failure(own: Path, journal: Journal | None, reason: str) -> None:
    """Say in status and metrics that a night failed."""
    now = datetime.now(UTC).isoformat()
    name = None if journal is None else journal.name
    started = now if journal is None else journal.started
    steps = {} if journal is None else journal.steps
    write_status(
        own,
        {
            "night": name,
            "started": started,
            "ended": now,
            "outcome": "failed",
            "reason": reason,
            "reasons": [reason],
            "steps": cost(steps),
        },
    )


def write_status(own: Path, document: Document) -> None:
    """Replace status and metrics by those of a night that has ended."""
    before = read_status(own)
    succeeded = document["outcome"] in ("promoted", "nothing_new")
    started, ended = (datetime.fromisoformat(document[name]) for name in ("started", "ended"))
    name = document.get("night")
    figures = (document.get("gate") or {}).get("figures", {})
    judged = {who: figures[f"{who}.{JUDGED_BY}"] for who in CONTENDERS if f"{who}.{JUDGED_BY}" in figures}
    status = {
        "night": name,
        "started": document["started"],
        "ended": document["ended"],
        "seconds": (ended - started).total_seconds(),
        "outcome": document["outcome"],
        "verdict": (document.get("gate") or {}).get("verdict"),
        "reason": document["reason"],
        "reasons": document.get("reasons") or [document["reason"]],
        "version": document.get("version"),
        "champion": document.get("champion"),
        "steps": document.get("steps", []),
        "ndcg": judged or before.get("ndcg") or {},
        "drift": (document.get("data") or {}).get("drift") or before.get("drift"),
        "report": f"reports/{name}.json" if name and (own / "reports" / f"{name}.json").exists() else None,
        "last_success": document["ended"] if succeeded else before.get("last_success"),
    }
    own.mkdir(parents=True, exist_ok=True)
    _replace(own / STATUS, json.dumps(status, indent=1, ensure_ascii=False))
    _replace(own / "metrics.prom", _metrics(status))


def read_status(own: Path) -> Document:
    """The last status; empty before the first night, or where it cannot be read."""
    try:
        status: Document = json.loads((own / STATUS).read_bytes())
    except (OSError, ValueError):
        return {}
    return status


def past_nights(own: Path) -> list[Document]:
    """The last nights' reports, oldest first; those that cannot be read are left out."""
    nights = []
    for path in sorted((own / "reports").glob("*.json"))[-PAST_NIGHTS:]:
        try:
            nights.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return nights


def forget_in_reports(own: Path, users: Collection[str]) -> None:
    """Take the samples of forgotten users out of earlier reports."""
    for path in (own / "reports").glob("*.json"):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        kept = [sample for sample in document.get("samples", []) if sample["user_id"] not in users]
        if len(kept) < len(document.get("samples", [])):
            _write(path, {**document, "samples": kept}, past_nights(own))


def _write(path: Path, document: Document, nights: list[Document]) -> None:
    """The report as JSON, and as a page that knows of the nights before it."""
    _replace(path, json.dumps(document, indent=1, ensure_ascii=False))
    before = [night for night in nights if night["night"] < document["night"]]
    _replace(path.with_suffix(".html"), _page(document, before))


def _document(journal: Journal, outcome: str, reason: str) -> Document:
    steps = journal.steps
    gate = steps.get("gate")
    snapshot = dict(steps.get("snapshot", {}))
    gone = snapshot.pop("gone", {})
    return {
        "night": journal.name,
        "started": journal.started,
        "ended": datetime.now(UTC).isoformat(),
        "outcome": outcome,
        "reason": reason,
        "reasons": [reason] if gate is None or gate["verdict"] == "promoted" else gate["reasons"],
        "dry_run": journal.identity["dry_run"],
        "champion": journal.identity["champion"],
        "version": steps.get("publish", {}).get("version"),
        "steps": cost(steps),
        "drain": steps.get("drain"),
        "data": {**snapshot, "retired": len(gone.get("retired", [])), "forgotten": len(gone.get("forgotten", []))},
        "encoding": steps.get("encode"),
        "findings": steps.get("validate", {}).get("findings", []),
        "training": steps.get("train"),
        "curves": _curves(journal.folder / "training" / "metrics.jsonl"),
        "gate": None if gate is None else {name: value for name, value in gate.items() if name not in COST},
        "samples": _samples(journal),
        "settings": journal.identity["settings"],
    }


def _curves(path: Path) -> list[Document]:
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {
            "epoch": record["epoch"],
            "loss": record["losses"]["total"],
            "recall@20": record["student"]["recall@20"],
            "teachers": {name: metrics["recall@20"] for name, metrics in record["teachers"].items()},
        }
        for record in records
    ]


def _samples(journal: Journal) -> list[Document]:
    """What a few users would get, what each teacher would have given them, and whose the student's choices are."""
    path, folder = journal.folder / "candidate.npz", journal.folder / "dataset"
    if "gate" not in journal.steps or not path.exists() or not folder.exists():
        return []
    candidate, data = Candidate.load(path), load_dataset(folder, SplitSpec("given"))
    holdout = fresh_holdout(data)
    judged = holdout.users()
    trained = candidate.trained
    if (
        not len(judged)
        or not np.isfinite(trained.user_embeddings).all()
        or not np.isfinite(trained.item_embeddings).all()
    ):
        return []
    rows = np.arange(min(SAMPLE_USERS, len(judged))) * len(judged) // min(SAMPLE_USERS, len(judged))
    students = challenger(trained.user_embeddings, trained.item_embeddings, data.interactions(TRAIN))
    lists = ranked_for(students.scores, judged[rows], holdout)
    titles = [(record.get("title") or record["item_id"]) for record in data.catalogue or []]

    def named(items: NDArray[np.integer]) -> list[Document]:
        there = items[items != NO_ITEM]
        return [{"item_id": data.item_ids[item], "title": str(titles[item])} for item in there]

    samples = []
    for row, user, best in zip(rows, judged[rows], lists, strict=True):
        said = {name: teacher.lists[row] for name, teacher in candidate.teachers.items()}
        best = best[best != NO_ITEM][:SAMPLE_ITEMS]
        from_whom = [[name for name, items in said.items() if item in items] for item in best]
        samples.append(
            {
                "user_id": data.user_ids[user],
                "took": named(holdout.training[user].indices[-HISTORY_ITEMS:]),
                "held_out": named(holdout.held_out[user].indices),
                "student": [entry | {"also": names} for entry, names in zip(named(best), from_whom, strict=True)],
                "teachers": {name: named(items[:SAMPLE_ITEMS]) for name, items in said.items()},
                "shares": {name: sum(name in names for names in from_whom) / len(best) for name in said},
            }
        )
    return samples


def _page(document: Document, past: list[Document]) -> str:
    from jinja2 import Environment

    text = (resources.files("trainer") / "nightly" / "templates" / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    nights = [night for night in [*past, document] if night.get("gate")]
    plots = {
        "nights": lines(
            "NDCG@20 on each night's holdout",
            [night["night"][:8] for night in nights],
            {who: [_figure(night, f"{who}.{JUDGED_BY}") for night in nights] for who in CONTENDERS},
        ),
        "volumes": lines(
            "interactions",
            [night["night"][:8] for night in nights],
            {"all": [night["data"]["interactions"] for night in nights]},
        ),
        "training": curves(document["curves"]),
    }
    return environment.from_string(text).render(night=document, past=nights, plots=plots)


def _figure(night: Document, name: str) -> float:
    return float(night["gate"]["figures"].get(name, math.nan))


def _metrics(status: Document) -> str:
    """The text format of Prometheus."""
    rows: list[tuple[str, Mapping[str, str], float]] = [
        ("last_run_timestamp_seconds", {}, datetime.fromisoformat(status["ended"]).timestamp()),
        ("duration_seconds", {}, status["seconds"]),
    ]
    if status["last_success"]:
        rows.append(("last_success_timestamp_seconds", {}, datetime.fromisoformat(status["last_success"]).timestamp()))
    for outcome in ("promoted", "refused", "nothing_new", "rolled_back", "failed"):
        rows.append(("outcome", {"outcome": outcome}, float(status["outcome"] == outcome)))
    for each in status["steps"]:
        rows.append(("step_duration_seconds", {"step": each["step"]}, each["seconds"]))
    for each in status["steps"]:
        if each["peak_mb"] is not None:
            rows.append(("step_peak_bytes", {"step": each["step"]}, each["peak_mb"] * 2**20))
    rows += [("ndcg", {"model": who}, value) for who, value in status["ndcg"].items()]
    lines, seen = [], set()
    for name, labels, value in rows:
        if name not in seen:
            lines.append(f"# TYPE mts4mm_nightly_{name} gauge")
            seen.add(name)
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"mts4mm_nightly_{name}{f'{{{inside}}}' if inside else ''} {value!r}")
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    with durable.replacing(path) as file:
        file.write(text.encode())
