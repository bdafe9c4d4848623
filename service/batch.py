"""``python -m service.batch``: recommendations for everybody in one file, such as for a newsletter.

They are what ``POST /recommend`` would answer at that moment, with the events, retired items and live items that the
state knows; no service need run.
"""

import argparse
import csv
import io
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from service.engine import Begun, Engine
from service.live_model import try_out
from service.overlay import Overlay
from service.queries import Query, RankedRows
from service.schemas import DEFAULT_K, MAX_K
from service.settings import Settings, load_settings
from shared import artifact
from shared.durable import replacing
from shared.errors import UsageError, UserError
from shared.state import StateUnavailable, open_state

_TOGETHER = 256
"""Users whose events are read in one round trip, and who are searched for in one pass."""
_POLL_SECONDS = 60.0
_AGAIN = "Nothing was written; give the command again once it answers"


class Written(NamedTuple):
    """What a file of recommendations holds."""

    version: str
    users: int
    rows: int


def write_recommendations(settings: Settings, out: Path, k: int, users: Path | None = None) -> Written:
    """Write the best items of many users to a file, whole or not at all.

    Args:
        settings: where models and state are.
        out: ``.csv``, a row an item, or ``.jsonl``, a line a user.
        k: items a user, from 1 to :data:`service.schemas.MAX_K`.
        users: a file with a user's id a line; by default all users of the model who have not been forgotten.

    Raises:
        UserError: there is no model, the state does not answer, or a file cannot be read or written.
    """
    head, lines = _format(out)
    if not 1 <= k <= MAX_K:
        raise UsageError(f"--k {k}: give a number from 1 to {MAX_K}")
    named = None if users is None else _user_ids(users)
    version = artifact.current_version(settings.models)
    if version is None:
        raise UserError(
            f"{settings.models}: holds no model yet; 'mts4mm train DATASET --out {settings.models}' makes one"
        )
    base = try_out(settings.models, version)
    with _followed(settings, base) as overlay:
        engine, people, rows = overlay.live_items.joined(base), 0, 0
        with replacing(out) as file:
            file.write(head)
            for user_id, ranked in _answers(engine, overlay, k, named):
                file.write(lines(user_id, ranked.strategy, _items(engine, ranked)))
                people, rows = people + 1, rows + len(ranked.rows)
    return Written(version, people, rows)


@contextmanager
def _followed(settings: Settings, engine: Engine) -> Iterator[Overlay]:
    """The state as it is now, with all live items made ready for an engine."""
    url, folder, weights = settings.redis_server, settings.state_folder(settings.models), settings.event_weights
    overlay = Overlay(lambda: open_state(url, folder, weights), weights, _POLL_SECONDS, engine=lambda: engine)
    try:
        overlay.look()
        never = threading.Event()
        while overlay.call("encode", lambda state: overlay.live_items.encode(state.live_items, engine, never)):
            pass
        if overlay.live_items.problem is not None:
            raise UserError(f"{overlay.live_items.problem}; without live items nothing was written")
        yield overlay
    except StateUnavailable as error:
        raise UserError(f"the user state is away: {error}. {_AGAIN}") from None
    finally:
        overlay.stop()


def _answers(engine: Engine, overlay: Overlay, k: int, named: Sequence[str] | None) -> Iterator[tuple[str, RankedRows]]:
    trained = engine.artifact.users
    user_ids = (trained.outside(row) for row in range(len(trained))) if named is None else iter(named)
    retired = overlay.retired_rows(engine)
    while together := list(islice(user_ids, _TOGETHER)):
        found, complete = overlay.since(together)
        if not complete:
            raise UserError(f"the user state is away. {_AGAIN}")
        each = list(zip(together, found, strict=True))
        if named is None:
            each = [(user_id, since) for user_id, since in each if not since.outdates(engine.forgotten_until)]
        begun = [engine.begin(Query(user_id=user_id, k=k, since=since), retired) for user_id, since in each]
        asking = [question for question in begun if isinstance(question, Begun)]
        best = iter(engine.index.top_k_of_each([question.asked for question in asking]) if asking else ())
        for (user_id, _), question in zip(each, begun, strict=True):
            yield user_id, question.answer(next(best)) if isinstance(question, Begun) else question


def _user_ids(users: Path) -> list[str]:
    """The ids of a file, each once."""
    try:
        lines = users.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{users}: is not UTF-8; save it as UTF-8, with a user's id a line") from None
    except OSError as error:
        raise UserError(f"{users}: {error.strerror}; give a file with a user's id a line") from None
    found = list(dict.fromkeys(line.removesuffix("\r") for line in lines if line.strip()))
    if not found:
        raise UserError(f"{users}: names nobody; write a user's id a line")
    return found


_Item = dict[str, Any]


class _Format(NamedTuple):
    """How a file begins, and what it says of a user: id, strategy and items."""

    head: bytes
    lines: Callable[[str, str, list[_Item]], bytes]


def _format(out: Path) -> _Format:
    if (found := _FORMATS.get(out.suffix.lower())) is None:
        raise UsageError(f"--out {out}: name it {' or '.join(f'*{suffix}' for suffix in _FORMATS)}")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: is no folder; make it, or give another --out")
    return found


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _csv_lines(user_id: str, strategy: str, items: list[_Item]) -> bytes:
    return _csv([user_id, item["rank"], item["item_id"], item["score"], strategy] for item in items)


def _json_line(user_id: str, strategy: str, items: list[_Item]) -> bytes:
    return json.dumps({"user_id": user_id, "strategy": strategy, "items": items}, ensure_ascii=False).encode() + b"\n"


_FORMATS = {
    ".csv": _Format(_csv([["user_id", "rank", "item_id", "score", "strategy"]]), _csv_lines),
    ".jsonl": _Format(b"", _json_line),
}


def _items(engine: Engine, ranked: RankedRows) -> list[_Item]:
    return [
        {"item_id": engine.items.outside(row), "score": score, "rank": rank}
        for rank, (row, score) in enumerate(zip(ranked.rows, ranked.scores, strict=True), 1)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file that was asked for, and say what it holds."""
    parser = argparse.ArgumentParser(prog="mts4mm recommend", description="Recommendations for everybody in one file.")
    parser.add_argument("--out", type=Path, required=True, help="the file: *.csv, a row an item, or *.jsonl")
    parser.add_argument("--k", type=int, default=DEFAULT_K, help="items a user")
    parser.add_argument("--users", type=Path, help="a file with a user's id a line; all users of the model by default")
    parser.add_argument("--models", type=Path, default=argparse.SUPPRESS, help="the models folder")
    given = vars(parser.parse_args(arguments))
    out, k, users = given.pop("out"), given.pop("k"), given.pop("users")
    try:
        written = write_recommendations(load_settings(**given), out, k, users)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"{out}: {written.rows} items for {written.users} users, by model {written.version}\n")


if __name__ == "__main__":
    main()
