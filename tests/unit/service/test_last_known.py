"""What was known of retired items and forgotten users, from one start to the next."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.last_known import NAME, LastKnown, keep, read

NOW = datetime.now(UTC)


def test_what_is_kept_is_read_again_and_replaced_by_what_is_kept_next(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    assert read(folder) == LastKnown()
    for known in (LastKnown(frozenset({"hat", "müg\ud800"}), {"a1": NOW, "b2": NOW - timedelta(days=1)}), LastKnown()):
        keep(folder, known)
        assert read(folder) == known
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_after_a_year_nobody_knows_that_somebody_was_forgotten(tmp_path: Path) -> None:
    keep(tmp_path, LastKnown(frozenset(), {"long ago": NOW - timedelta(days=366), "lately": NOW - timedelta(days=364)}))
    assert "long ago" not in (tmp_path / NAME).read_text()
    assert set(read(tmp_path).forgotten) == {"lately"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"retired": [], "forgotten": 3}',
        '{"retired": 3, "forgotten": {}}',
        '{"retired": [], "forgotten": {"a": "soon"}}',
        '{"retired": [], "forgotten": {"a": "2026-11-28"}}',
        "\udcff",
    ],
)
def test_what_makes_no_sense_is_logged_and_nothing(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(content.encode(errors="surrogateescape"))
    assert read(tmp_path) == LastKnown()
    assert "cannot be read" in caplog.text


def test_where_nothing_can_be_kept_it_is_said_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "File exists" in str(keep(tmp_path / "file", LastKnown()))
