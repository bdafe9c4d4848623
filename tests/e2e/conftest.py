"""The command line as a stranger meets it: real processes, a shop of its own, a model trained on it."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import command_line

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run ``mts4mm`` with the given words and wait for it."""

    def run(*words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return command_line(words, {**os.environ, "COLUMNS": "200"}, timeout)

    return run


@dataclass(frozen=True)
class Trained:
    """A small shop and a store with one model of it."""

    shop: Path
    store: Path
    outcome: dict[str, Any]


@pytest.fixture(scope="session")
def trained(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("e2e")
    shop, store = folder / "shop", folder / "models"
    made = cli("demo-data", shop, "--users", 300, "--items", 120)
    assert made.returncode == 0, made.stderr
    run = cli("train", shop, "--out", store, "--recipe", "demo", "--set", "epochs=6", "--json")
    assert run.returncode == 0, run.stderr
    return Trained(shop, store, json.loads(run.stdout))
