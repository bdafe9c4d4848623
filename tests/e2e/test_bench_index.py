"""The benchmark of index kinds prints what it measured, on a catalogue small enough for a test."""

import json

import pytest

from shared.index.kinds import KINDS
from tests.e2e.conftest import Cli


@pytest.mark.slow
def test_every_kind_is_measured_against_the_exact_index(cli: Cli) -> None:
    run = cli("bench", "index", "--items", 1000, "--items", 600, "--queries", 30, "--width", 16, "--json")

    assert run.returncode == 0, run.stderr
    sizes = json.loads(run.stdout)
    assert [(size["items"], size["width"]) for size in sizes] == [(1000, 16), (600, 16)]
    for size in sizes:
        assert [kind["kind"] for kind in size["kinds"]] == ["flat", *KINDS]
        for kind in size["kinds"]:
            assert kind["times_flat"] == pytest.approx(size["kinds"][0]["microseconds"] / kind["microseconds"])
            assert kind["recall"] > 0.8


def test_an_unknown_kind_is_refused_by_name(cli: Cli) -> None:
    run = cli("bench", "index", "--kind", "quantum")

    assert run.returncode == 2
    assert "quantum" in run.stderr
