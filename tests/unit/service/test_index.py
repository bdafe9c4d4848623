"""The index that an artefact carries is used if it is sound and good, and the exact one if it is not."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.index import open_index
from service.settings import Settings
from shared import artifact
from shared.artifact import Artifact, DatasetInfo, Provenance, Split, StudentModel
from shared.index import files, report
from shared.index.kinds import KINDS
from shared.index.report import Candidate, IndexReport
from tests.unit.index.conftest import WIDTH, items_and_users
from trainer import index_choice
from trainer.index_choice import choose_index, is_better

ITEMS, USERS = items_and_users(2000, 80)


def described(kind: str, depth: float = 1.0, refine: int = 1) -> bytes:
    chosen = Candidate(kind=kind, depth=depth, refine=refine, recall=0.995, microseconds=9.0)
    return report.encode(
        IndexReport(chosen=chosen, reason="a test", candidates=(chosen,), items=2000, width=WIDTH, queries=80)
    )


def file_of(kind: str, folder: Path, items: np.ndarray = ITEMS) -> bytes:
    files.write(KINDS[kind].build(items), folder / "made")
    return (folder / "made").read_bytes()


def publish(store: Path, attachments: dict[str, bytes | Path]) -> Artifact:
    model = StudentModel(
        user_ids=[f"u{user}" for user in range(80)],
        item_ids=[f"i{item}" for item in range(2000)],
        user_embeddings=USERS,
        item_embeddings=ITEMS,
        train_indptr=np.arange(81),
        train_indices=np.arange(80),
        attachments=attachments,
    )
    split = Split(kind="random", seed=1)
    dataset = DatasetInfo(name="shop", fingerprint="f", users=80, items=2000, interactions=80, split=split)
    return artifact.load(store, artifact.publish(store, model, Provenance(dataset, {}, 1, {})))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_index_is_used_and_its_recall_told(kind: str, tmp_path: Path) -> None:
    most = KINDS[kind].depths[-1], KINDS[kind].refines[-1]
    attached = {files.REPORT: described(kind, *most), files.INDEX: file_of(kind, tmp_path)}
    store = tmp_path / "models"
    publish(store, {**attached})

    with TestClient(create_app(Settings(models=store))) as client:
        health = client.get("/health").json()
        answer = client.post("/recommend", json={"user_id": "u7", "k": 20}).json()

    assert health["index"] == kind
    assert 0.97 <= health["index_recall"] <= 1
    scores = USERS[7].astype(float) @ ITEMS.astype(float).T
    scores[7] = -np.inf
    expected = {f"i{item}" for item in np.argsort(-scores)[:20]}
    assert len(expected & {item["item_id"] for item in answer["items"]}) >= 15
    assert [item["score"] for item in answer["items"]] == pytest.approx(
        [scores[int(item["item_id"][1:])] for item in answer["items"]]
    )


@pytest.mark.parametrize(
    "damage", ["bits", "other items", "poor", "unknown kind", "no file", "other kind", "no report"]
)
def test_with_an_index_that_will_not_do_answers_are_exact_and_health_says_why(damage: str, tmp_path: Path) -> None:
    """All of these are sealed by the artefact's checksums: somebody published them like that."""
    sound = file_of("ivf-flat", tmp_path)
    attached: dict[str, bytes | Path] = {files.REPORT: described("ivf-flat", 2048.0), files.INDEX: sound}
    if damage == "bits":
        attached[files.INDEX] = sound[:9] + bytes([sound[9] ^ 4]) + sound[10:]
    elif damage == "other items":
        attached[files.INDEX] = file_of("ivf-flat", tmp_path, items_and_users(2000, 1, seed=9)[0])
    elif damage == "poor":
        attached[files.REPORT] = described("ivf-flat", 1.0)
    elif damage == "unknown kind":
        attached[files.REPORT] = described("quantum")
    elif damage == "no file":
        del attached[files.INDEX]
    elif damage == "other kind":
        attached[files.REPORT] = described("hnsw", 64.0)
    else:
        attached[files.REPORT] = b"{}"
    store = tmp_path / "models"
    publish(store, attached)

    with TestClient(create_app(Settings(models=store))) as client:
        health = client.get("/health").json()
        told = client.get("/metrics").text
        answer = client.post("/recommend", json={"user_id": "u7", "k": 20}).json()

    assert "mts4mm_index_fell_back 1.0" in told
    assert (health["status"], health["index"], health["index_recall"]) == ("degraded", "flat", 1.0)
    assert any(problem.startswith("Index: searched exactly") for problem in health["problems"])
    scores = USERS[7].astype(float) @ ITEMS.astype(float).T
    scores[7] = -np.inf
    assert [item["item_id"] for item in answer["items"]] == [f"i{item}" for item in np.argsort(-scores)[:20]]


def test_without_a_report_the_index_is_exact_and_nothing_is_wrong(tmp_path: Path) -> None:
    opened = open_index(publish(tmp_path, {}))

    assert (opened.index.kind, opened.recall, opened.fallback) == ("flat", 1.0, None)


def test_the_trainer_records_a_recall_for_each_kind_that_anybody_gets_who_measures_again(tmp_path: Path) -> None:
    attached = choose_index(ITEMS, USERS, 0, tmp_path)
    content = attached[files.REPORT]
    assert isinstance(content, bytes)
    document = report.decode(content)
    best = np.argsort(-(USERS.astype(float) @ ITEMS.astype(float).T), axis=1)[:, :20]

    assert [candidate.kind for candidate in document.candidates] == ["flat", *KINDS]
    for candidate in document.candidates[1:]:
        only = IndexReport(
            chosen=candidate, reason="", candidates=(candidate,), items=2000, width=WIDTH, queries=len(USERS)
        )
        store = tmp_path / candidate.kind
        made = {files.REPORT: report.encode(only), files.INDEX: file_of(candidate.kind, tmp_path)}
        index = open_index(publish(store, {**made})).index
        found = [set(index.top_k(query, 20, np.array([], int)).items.tolist()) for query in USERS]
        recall = np.mean([len(set(row.tolist()) & items) / 20 for row, items in zip(best, found, strict=True)])
        assert candidate.recall == pytest.approx(recall, abs=0.01)
        assert candidate.microseconds > 0


def test_a_chosen_index_goes_with_the_artefact_and_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a catalogue this small no kind saves enough time; so let any do."""
    monkeypatch.setattr(index_choice, "LEAST_SPEED_UP", 0.0)
    monkeypatch.setattr(index_choice, "LEAST_GAIN_MICROSECONDS", -1e9)
    monkeypatch.setattr(
        index_choice.Comparison, "flat", lambda self: Candidate(kind="flat", recall=1, microseconds=1e9)
    )

    attached = choose_index(ITEMS, USERS, 0, tmp_path)
    opened = open_index(publish(tmp_path / "models", attached))

    assert opened.fallback is None
    assert opened.index.kind in KINDS
    assert opened.recall >= 0.97


def test_another_kind_than_the_exact_one_must_be_good_and_much_faster() -> None:
    flat = Candidate(kind="flat", recall=1.0, microseconds=1000.0)

    def better(recall: float, microseconds: float, remark: str | None = None) -> bool:
        return is_better(Candidate(kind="hnsw", recall=recall, microseconds=microseconds, remark=remark), flat, flat)

    assert better(0.99, 500.0)
    assert not better(0.9899, 10.0)
    assert not better(1.0, 501.0)
    assert not better(1.0, 10.0, "would take 900 s to build")
    small = Candidate(kind="flat", recall=1.0, microseconds=150.0)
    assert not is_better(Candidate(kind="hnsw", recall=1.0, microseconds=51.0), small, small)
