"""``mts4mm nightly`` and ``mts4mm schedule``: the retrain, once and every night."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UserError
from shared.settings import state_settings
from trainer.cli import output
from trainer.cli.events import LOG_FOLDER, LogOption, state_opener

if TYPE_CHECKING:
    from trainer.nightly.job import Ended, Watcher
    from trainer.nightly.places import Places
    from trainer.nightly.settings import NightlySettings
    from trainer.training import EpochRecord, Progress

DatasetArgument = Annotated[
    Path, typer.Argument(envvar="MTS4MM_SHOP", help="Dataset directory that the shop began with.", show_default=False)
]
ModelsOption = Annotated[
    Path, typer.Option(envvar="MTS4MM_MODELS", help="Model store; the night's own folder .nightly is in it.")
]
SettingsOption = Annotated[
    Path | None,
    typer.Option("--settings", envvar="MTS4MM_NIGHT", help="A YAML file of settings.", show_default=False),
]
ServiceOption = Annotated[
    str | None,
    typer.Option(
        envvar="MTS4MM_SERVICE",
        help="URL of the running service, to confirm and watch; without it neither is done.",
        show_default=False,
    ),
]


def nightly(
    dataset: DatasetArgument,
    models: ModelsOption = Path("models"),
    log: LogOption = None,
    settings: SettingsOption = None,
    service: ServiceOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and judge, and publish nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a night that did not end.")] = False,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print all settings with their values, and stop.")
    ] = False,
    exit_zero: Annotated[
        bool,
        typer.Option("--exit-zero", help="Exit code 0 for 10 to 13 too, for schedulers that try again what fails."),
    ] = False,
    json_: output.JsonOption = False,
) -> None:
    """Retrain on what users did: a better model goes live, or none.

    A night that was interrupted is gone on with by giving the same command again. Exit codes: 0 promoted, 10 refused
    by the gate, 11 nothing new, 12 rolled back, 13 another night is going on; 1 and 3 it failed.
    The report is in MODELS/.nightly/reports.
    """
    from trainer.nightly.places import Places
    from trainer.nightly.settings import load_settings

    chosen = load_settings(settings)
    if print_settings:
        _print_settings(chosen)
        return
    places = Places(dataset, models, log or models / LOG_FOLDER, service, state_settings().models_url)
    ended = run_night(places, chosen, device=device, dry_run=dry_run, fresh=fresh)
    if ended is None:
        output.say(f"{places.own}: another night is going on")
        raise typer.Exit(0 if exit_zero else _busy())
    report = places.own / "reports" / f"{ended.journal.name}.json"
    if json_:
        sys.stdout.write(report.read_text(encoding="utf-8") + "\n")
    else:
        output.stdout.print(f"{ended.outcome.word}: {ended.reason}", highlight=False, markup=False, soft_wrap=True)
        output.stdout.print(f"report: {report.with_suffix('.html')}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if exit_zero else ended.outcome)


def schedule(
    dataset: DatasetArgument,
    cron: Annotated[str, typer.Option(help="When, as five fields of cron, in UTC.")] = "0 3 * * *",
    models: ModelsOption = Path("models"),
    log: LogOption = None,
    settings: SettingsOption = None,
    service: ServiceOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run the nightly job by a schedule, each night in a process of its own, until SIGTERM or Ctrl-C."""
    from trainer.nightly.schedule import run_by_schedule

    words: list[object] = [sys.executable, "-m", "trainer.cli", "nightly", dataset, "--models", models]
    for name, value in (("log", log), ("settings", settings), ("service", service), ("device", device)):
        words += [] if value is None else [f"--{name}", value]
    run_by_schedule(cron, list(map(str, words)), output.say)


def run_night(
    places: Places, settings: NightlySettings, *, device: str = "auto", dry_run: bool = False, fresh: bool = False
) -> Ended | None:
    """Run a night and show how far it is; None if another one is going on.

    Raises:
        UserError: it failed; the status says so too, but for a dry run.
    """
    from trainer.nightly.job import Night, alone
    from trainer.nightly.report import write_failure

    with ExitStack() as held:
        try:
            held.enter_context(alone(places))
        except BlockingIOError:
            return None
        night = None
        try:
            if places.models_url is not None:
                _follow_object_store(places.models_url, places.store)
            with _shown() as watcher:
                night = Night(
                    places,
                    settings,
                    state_opener(places.store),
                    state_settings().event_weights,
                    device=device,
                    dry_run=dry_run,
                    fresh=fresh,
                    watcher=watcher,
                )
                return night.run()
        except Exception as error:
            if not dry_run:
                write_failure(places.own, None if night is None else night.journal, str(error) or repr(error))
            raise
        finally:
            if places.models_url is not None and not dry_run:
                _tell_object_store(places.models_url, places.store)


def _follow_object_store(url: str, models: Path) -> None:
    """What is live there is the champion: somebody may have rolled back since the last night."""
    from shared.object_store import ObjectStore

    ObjectStore(url, models).pull()


def _tell_object_store(url: str, models: Path) -> None:
    """How the night ended, which the services say to whoever watches them; it ended so all the same."""
    from shared.object_store import ObjectStore

    try:
        ObjectStore(url, models).push_night()
    except UserError as error:
        output.say(f"the object store is not told how the night ended: {error}")


def _busy() -> int:
    from trainer.nightly.outcome import Outcome

    return Outcome.BUSY


def _print_settings(settings: NightlySettings) -> None:
    import yaml

    sys.stdout.write(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


@contextmanager
def _shown() -> Iterator[Watcher]:
    from trainer.nightly.job import Watcher
    from trainer.training import Listener

    with output.progress_bars() as bars:
        task = bars.add_task("night", total=1, note="")

        def on_step(name: str) -> None:
            bars.update(task, description=name, completed=0, total=1, note="")
            if not bars.console.is_terminal:
                output.say(f"nightly: {name}")

        def on_epoch(record: EpochRecord, progress: Progress) -> None:
            best = progress.validation.get("recall@20", float("nan"))
            bars.update(task, note=f"epoch {record.epoch}, best validation R@20 {best:.4f} at {progress.best_epoch}")

        listener = Listener(
            stage=lambda name: bars.update(task, note=f"building the {name}"),
            step=lambda done, total: bars.update(task, completed=done, total=total),
            epoch=on_epoch,
        )
        yield Watcher(on_step, listener)
