"""From a folder of files to an answer over HTTP, and what happens when something is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared import artifact
from shared.api_keys import digest
from tests.e2e.conftest import Cli, Trained
from tests.processes import started

pytestmark = pytest.mark.slow


def test_a_demo_shop_is_valid_data(cli: Cli, trained: Trained) -> None:
    report = cli("validate", trained.shop, "--json")
    assert report.returncode == 0
    assert not [f for f in json.loads(report.stdout)["findings"] if f["severity"] == "error"]


def test_training_logs_every_epoch_and_publishes_the_live_version(trained: Trained) -> None:
    log = Path(trained.outcome["run"]) / "metrics.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, trained.outcome["epochs"] + 1))
    assert artifact.current_version(trained.store) == trained.outcome["version"]


def test_evaluate_reproduces_the_runs_figures_from_the_artefact(cli: Cli, trained: Trained) -> None:
    run = cli("evaluate", trained.store, trained.shop, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    for part in ("validation", "test"):
        for name, value in trained.outcome[part].items():
            assert document["metrics"][f"{part}.{name}"] == pytest.approx(value, abs=1e-9)
    assert document["recorded"] == pytest.approx(document["metrics"], abs=1e-9)


def test_evaluate_refuses_other_data(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    assert cli("demo-data", tmp_path / "other", "--users", 60, "--items", 60, "--seed", 1).returncode == 0
    run = cli("evaluate", trained.store, tmp_path / "other")
    assert run.returncode == 1
    assert "not the data" in run.stderr


def test_models_list_and_verify(cli: Cli, trained: Trained) -> None:
    (entry,) = json.loads(cli("models", "list", trained.store, "--json").stdout)
    assert entry["version"] == trained.outcome["version"]
    assert entry["current"]
    assert cli("models", "verify", trained.store).returncode == 0
    assert cli("models", "verify", trained.store, "no-such-version").returncode == 1


def test_models_are_activated_and_rolled_back(cli: Cli, tmp_path: Path) -> None:
    model = artifact.StudentModel(["ann"], ["mug"], np.ones((1, 2)), np.ones((1, 2)), np.array([0, 1]), np.array([0]))
    dataset = artifact.DatasetInfo(
        name="shop", fingerprint="f", users=1, items=1, interactions=1, split=artifact.Split(kind="given")
    )
    a, b, c = (artifact.publish(tmp_path, model, artifact.Provenance(dataset, {}, 0, {})) for _ in range(3))
    assert f"{a} is live" in cli("models", "activate", a, tmp_path).stdout
    assert artifact.current_version(tmp_path) == a
    assert json.loads(cli("models", "rollback", tmp_path, "--json").stdout)["live"] == c
    assert f"{b} is live" in cli("models", "rollback", tmp_path).stdout
    assert artifact.current_version(tmp_path) == b
    (tmp_path / a / "fold_in.npy").unlink()
    for words, said in (
        (("rollback", tmp_path), "fold_in.npy: is missing"),
        (("activate", a, tmp_path), "fold_in.npy: is missing"),
        (("activate", "latest", tmp_path), "'latest' is not the name of a version"),
        (("rollback", tmp_path / "nowhere"), "holds no current model"),
    ):
        refused = cli("models", *words)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert artifact.current_version(tmp_path) == b


def test_a_damaged_artefact_is_refused_by_name(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    store = tmp_path / "models"
    subprocess.run(["cp", "-r", trained.store, store], check=True)
    path = store / trained.outcome["version"] / "item_embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run = cli("models", "verify", store)
    assert run.returncode == 1
    assert "item_embeddings.npy" in run.stdout
    served = cli("serve", "--models", store, "--port", 0, timeout=60)
    assert served.returncode == 1
    assert "item_embeddings.npy" in served.stderr


def test_the_served_answer_is_the_ranking_of_the_exported_embeddings(trained: Trained, tmp_path: Path) -> None:
    model = artifact.load(trained.store)
    user = 7
    scores = model.item_embeddings @ model.user_embeddings[user]
    scores[model.seen(user)] = -np.inf
    expected = [model.items.outside(int(item)) for item in np.argsort(-scores, kind="stable")[:10]]
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", "serve", "--models", str(trained.store), "--port", str(port)]
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        answer = ask(port, {"user_id": model.users.outside(user), "k": 10})
        assert [item["item_id"] for item in answer["items"]] == expected
        assert answer["strategy"] == "personal"
        assert answer["model_version"] == trained.outcome["version"]
        assert ask(port, {"user_id": "a stranger", "k": 3})["strategy"] == "trending"  # the shop's data have times
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


def test_killed_training_resumes_to_the_same_embeddings(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    words = ["train", trained.shop, "--out", tmp_path, "--recipe", "demo", "--set", "epochs=6", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert artifact.current_version(tmp_path) is None
    resumed = cli(*words)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stderr
    whole, again = artifact.load(trained.store), artifact.load(tmp_path)
    assert np.array_equal(whole.user_embeddings, again.user_embeddings)
    assert np.array_equal(whole.item_embeddings, again.item_embeddings)
    left = {path.name for path in tmp_path.glob(".runs/*/*")}
    assert left == {"metrics.jsonl", "lock"}, "a published run needs its weights no more"


def test_formats_agree(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    """The same shop as Parquet trains to the same embeddings as the CSV."""
    shop = tmp_path / "shop"
    subprocess.run(["cp", "-r", trained.shop, shop], check=True)
    for name in ("interactions", "items"):
        pl.read_csv(shop / f"{name}.csv").write_parquet(shop / f"{name}.parquet")
        (shop / f"{name}.csv").unlink()
    run = cli("train", shop, "--out", tmp_path / "models", "--recipe", "demo", "--set", "epochs=6", "--json")
    assert run.returncode == 0, run.stderr
    one, other = artifact.load(trained.store), artifact.load(tmp_path / "models")
    assert np.array_equal(one.item_embeddings, other.item_embeddings)


def test_the_demo_serves_what_it_trained_and_ctrl_c_ends_it_all(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "demo", "--folder", tmp_path, "--port", 0]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (serving := re.search(r"serving on http://127.0.0.1:(\d+) until Ctrl-C", process.stderr.readline())):
            assert process.poll() is None
        port = int(serving[1])
        answer = ask(port, {"user_id": "u0002", "k": 4})
        assert len(answer["items"]) == 4
        assert all(item["metadata"]["title"] for item in answer["items"])
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert f"curl -s http://127.0.0.1:{port}/recommend" in printed
    with pytest.raises(OSError, match="refused"):
        wait_for(f"http://127.0.0.1:{port}/health", seconds=0)


def test_keys_are_made_listed_and_revoked(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = cli("keys", "new", file, "shop", "--scope", "read", "--scope", "events")
    secret = made.stdout.strip()
    assert secret.startswith("mts_")
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(cli("keys", "new", file, "ops", "--scope", "admin", "--json").stdout)["scopes"] == ["admin"]
    until = json.loads(cli("keys", "new", file, "guest", "--expires", "2099-01-31", "--json").stdout)["expires"]
    assert until == "2099-01-31T00:00:00+00:00"
    held = cli("keys", "new", file, "retrain", "--into", tmp_path / "retrain-key")
    assert held.stdout == ""
    assert digest((tmp_path / "retrain-key").read_text().strip()) in file.read_text()
    assert (tmp_path / "retrain-key").stat().st_mode & 0o777 == 0o600
    listed = json.loads(cli("keys", "list", file, "--json").stdout)
    assert listed == [
        {"name": "shop", "scopes": ["read", "events"], "expires": None},
        {"name": "ops", "scopes": ["admin"], "expires": None},
        {"name": "guest", "scopes": ["read"], "expires": "2099-01-31T00:00:00Z"},
        {"name": "retrain", "scopes": ["read"], "expires": None},
    ]
    before = file.read_bytes()
    for words, said in (
        (("new", file, "shop", "--into", tmp_path / "unmade"), "choose another name"),
        (("new", file, "x", "--into", tmp_path / "retrain-key"), "is there already"),
        (("revoke", file, "nobody"), "'shop', 'ops', 'guest'"),
        (("new", file, "x", "--scope", "root"), "root"),
        (("new", file, "x", "--expires", "2001-01-31"), "is over"),
    ):
        refused = cli("keys", *words)
        assert refused.returncode in (1, 2)
        assert said in refused.stderr
        assert file.read_bytes() == before
    assert not (tmp_path / "unmade").exists()
    for name in ("shop", "guest", "retrain"):
        assert cli("keys", "revoke", file, name).returncode == 0
    assert "last key" in cli("keys", "revoke", file, "ops").stderr


def test_bench_propagation_times_the_three_products(cli: Cli, trained: Trained) -> None:
    run = cli("bench", "propagation", trained.shop, "--repeats", 2, "--json")
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)["milliseconds"]) == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "no-such-folder"], 1, "no-such-folder"),
        (["train", "{shop}", "--set", "widht=3"], 2, "widht"),
        (["train", "{shop}", "--recipe", "nonsense"], 2, "nonsense"),
        (["train", "{shop}", "--device", "tpu"], 2, "tpu"),
        (["train", "{shop}", "--split", "given"], 1, "x_label"),
        (["train", "{shop}", "--out", "{shop}/items.csv"], 1, "give another --out"),
        (["nightly", "{shop}", "--models", "{shop}/items.csv"], 1, "give another --models"),
        (["validate", "no-such-folder"], 1, "no-such-folder"),
        (["models", "verify", "no-such-folder"], 1, "no-such-folder"),
        (["evaluate", "no-such-folder", "{shop}"], 1, "no-such-folder"),
        (["serve", "--port", "99999999"], 2, "--port"),
        (["demo-data", "{shop}/items.csv"], 1, "items.csv"),
        (["no-such-command"], 2, "no-such-command"),
    ],
)
def test_mistakes_end_in_a_message_and_a_documented_code(
    cli: Cli, trained: Trained, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    run = cli(*(word.format(shop=trained.shop) for word in words))
    assert run.returncode == code, run.stderr
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


def test_the_options_of_serve_are_the_services_settings(cli: Cli) -> None:
    given = {"models": "store", "host": "::1", "port": 8123, "catalogue": "shop", "workers": 4}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    shown = cli("serve", *words, "--print-config").stdout.splitlines()
    assert {f"MTS4MM_{name.upper()}={value}" for name, value in given.items()} <= set(shown)


def test_everybodys_recommendations_are_written_to_a_file(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    run = cli("recommend", "--models", trained.store, "--out", tmp_path / "all.csv", "--k", 4)
    assert run.returncode == 0, run.stderr
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 4 * 300
    assert cli("recommend", "--models", tmp_path, "--out", tmp_path / "none.csv").returncode == 1


def test_errors_are_json_where_json_is_asked_for(cli: Cli) -> None:
    run = cli("train", "no-such-folder", "--json")
    assert json.loads(run.stdout)["exit_code"] == run.returncode == 1


def test_a_training_without_room_on_the_disk_says_so_and_goes_on_when_there_is(
    cli: Cli, trained: Trained, tmp_path: Path
) -> None:
    words = ["train", trained.shop, "--recipe", "demo", "--set", "epochs=2", "--out", tmp_path / "models"]
    command = [sys.executable, "-m", "trainer.cli", *map(str, words)]
    limited = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh", *command]  # no file beyond 100 kB
    full = subprocess.run(limited, capture_output=True, text=True, timeout=120, check=False)
    assert full.returncode == 1
    assert "make room, then give the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert artifact.current_version(tmp_path / "models") is None
    assert cli(*words).returncode == 0


def test_a_second_training_of_the_same_run_is_refused(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    words = ["train", trained.shop, "--out", tmp_path, "--recipe", "demo"]
    first = subprocess.Popen([sys.executable, "-m", "trainer.cli", *map(str, words)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".runs/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        second = cli(*words, "--fresh")
        assert second.returncode == 1
        assert "another process" in second.stderr
        assert list(tmp_path.glob(".runs/*/metrics.jsonl"))
    finally:
        first.kill()
        first.wait()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def ask(port: int, body: dict) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recommend", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
