"""``mts4mm events``: the log of all events, between the service and the nightly training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.errors import UsageError, UserError
from shared.settings import state_settings
from trainer.cli import output

if TYPE_CHECKING:
    from shared.state import UserState

app = typer.Typer(help="Look after the log of events.", no_args_is_help=True)

LOG_FOLDER = ".events"
MOST_SHOWN = 20

ModelsOption = Annotated[
    Path, typer.Option(envvar="MTS4MM_MODELS", help="Model store; the log is in its folder .events by default.")
]
LogOption = Annotated[Path | None, typer.Option(envvar="MTS4MM_LOG", help="Folder of the log.", show_default=False)]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file of events.", show_default=False)],
    models: ModelsOption = Path("models"),
    log: LogOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import the good rows though others are bad.")] = False,
    json_: output.JsonOption = False,
) -> None:
    """Add events from a file to the log; those it has already, by event_id, are not added again.

    Of those that stand in the file more than once, by event_id or all their fields, the first counts.

    Nothing is imported where a row is bad, unless --skip-bad is given.
    """
    from trainer.nightly.event_log import EventLog, as_frame
    from trainer.nightly.imports import read_events

    events, bad = read_events(file, list(state_settings().event_weights))
    if not json_:
        for each in bad[:MOST_SHOWN]:
            output.say(f"{file}: row {each.row}: {each.reason}")
    if bad and not skip_bad:
        raise UserError(
            f"{file}: {len(bad)} of {len(bad) + len(events)} rows are no events ({bad[0].reason}); mend them, or leave "
            "them out with --skip-bad"
        )
    distinct = as_frame(events).unique("event_id", keep="first", maintain_order=True)
    within = len(events) - len(distinct)
    appended = EventLog(log or models / LOG_FOLDER).append(distinct)
    if json_:
        output.print_json(asdict(appended) | {"repeated_in_file": within, "bad": [asdict(each) for each in bad]})
    else:
        output.stdout.print(
            f"{appended.new:,} events are new, {appended.repeated:,} were there, {within:,} repeat others of the file, "
            f"{len(bad):,} rows were bad",
            highlight=False,
        )


@app.command()
def stats(models: ModelsOption = Path("models"), log: LogOption = None, json_: output.JsonOption = False) -> None:
    """What the log holds."""
    from trainer.nightly.event_log import EventLog

    found = EventLog(log or models / LOG_FOLDER).stats()
    if json_:
        output.print_json(found)
        return
    rows = [(name, _shown(value)) for name, value in found.items() if name not in ("types", "days", "removals")]
    output.print_table("events", ("", ""), rows)
    for name in ("types", "days"):
        output.print_table(name, (name, "events"), [(key, f"{count:,}") for key, count in found[name].items()])


@app.command()
def remove(
    user: Annotated[list[str] | None, typer.Option(help="Of this user; repeatable.", show_default=False)] = None,
    item: Annotated[list[str] | None, typer.Option(help="With this item; repeatable.", show_default=False)] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Of this type; repeatable.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on, such as 2026-11-24T03:00Z.", show_default=False)
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this time.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and remove nothing.")] = False,
    models: ModelsOption = Path("models"),
    log: LogOption = None,
    json_: output.JsonOption = False,
) -> None:
    """Take events out of the log and out of what the service knows of their users, such as those of a bot.

    An event is removed that all options given are true of. The next night trains without them. They are set aside in
    the log's folder, and an event of the same event_id is never counted again. A dry run counts what waits in Redis
    too, and leaves it there.
    """
    from trainer.nightly.event_log import EventLog, Selection
    from trainer.nightly.imports import read_time
    from trainer.nightly.removal import remove_events

    try:
        since_, until_ = (None if each is None else read_time(each) for each in (since, until))
    except ValueError as error:
        raise UsageError(str(error)) from None
    selection = Selection(tuple(user or ()), tuple(item or ()), tuple(type_ or ()), since_, until_)
    if not selection:
        raise UsageError("say which events: --user, --item, --type, --from or --to")
    there = EventLog.existing(log or models / LOG_FOLDER)
    removed = remove_events(state_opener(models), there, selection, dry_run=dry_run)
    if json_:
        output.print_json(asdict(removed) | {"dry_run": dry_run})
        return
    words = "would be removed" if dry_run else f"removed, {removed.known:,} of them still counted in answers"
    output.stdout.print(
        f"{removed.events:,} events of {removed.users:,} users and {removed.items:,} items {words}", highlight=False
    )


def state_opener(models: Path) -> Callable[[], AbstractContextManager[UserState]]:
    """What opens the user state that the settings name, for a models folder."""
    from shared.state import open_state

    settings = state_settings()
    return lambda: open_state(settings.redis_server, settings.state_folder(models), settings.event_weights)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
