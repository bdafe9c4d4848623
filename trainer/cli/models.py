"""``mts4mm models``: what a store holds, whether it is whole, and which version is live."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from shared import artifact
from shared.errors import ExitCode, SupersededError, UserError
from shared.settings import state_settings
from trainer.cli import output
from trainer.cli.training import forget_runs

app = typer.Typer(help="Look after the artefacts of a store.", no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(help="Model store.")]


@app.command("list")
def list_(store: StoreArgument = Path("models"), json_: output.JsonOption = False) -> None:
    """The versions in a store, oldest first, and which one is live."""
    versions = artifact.list_versions(store)
    if json_:
        output.print_json([_document(entry) for entry in versions])
        return
    output.print_table(
        str(store),
        ("version", "", "dataset", "users", "items", "test recall@20", "damage"),
        [_row(entry) for entry in versions],
    )


@app.command()
def verify(
    store: StoreArgument = Path("models"),
    version: Annotated[str | None, typer.Argument(help="One version; all of them by default.")] = None,
    json_: output.JsonOption = False,
) -> None:
    """Check every file of a version against its manifest; exit code 1 if one is damaged."""
    known = [entry.version for entry in artifact.list_versions(store)]
    if not known:
        raise UserError(f"{store}: no artefact in this store; 'mts4mm train DATASET --out {store}' makes one")
    if version is not None and version not in known:
        raise UserError(f"{store}: no version {version}; it holds {', '.join(known)}")
    names = known if version is None else [version]
    problems = {name: _damage(store, name) for name in names}
    if json_:
        output.print_json(problems)
    else:
        for name, problem in problems.items():
            output.stdout.print(f"{name}: {problem or 'whole'}", highlight=False, markup=False, soft_wrap=True)
    if any(problems.values()):
        raise typer.Exit(ExitCode.BAD_INPUT)


@app.command()
def activate(
    version: Annotated[str, typer.Argument(help="A version that 'models list' shows.", show_default=False)],
    store: StoreArgument = Path("models"),
    json_: output.JsonOption = False,
) -> None:
    """Make a version the live one, after checking it; running services follow on their own.

    Where MTS4MM_MODELS_URL names the object store that STORE is a copy of, it is live there too.
    """
    _switch(store, lambda: artifact.activate(store, version), json_)


@app.command()
def rollback(store: StoreArgument = Path("models"), json_: output.JsonOption = False) -> None:
    """Make the version live that was so before; each call goes back one more.

    Where MTS4MM_MODELS_URL names the object store that STORE is a copy of, it is live there too.
    """
    _switch(store, lambda: artifact.rollback(store), json_)


@app.command()
def push(
    url: Annotated[str, typer.Argument(help="Such as s3://bucket/models.", show_default=False)],
    store: StoreArgument = Path("models"),
    json_: output.JsonOption = False,
) -> None:
    """Copy the live version, and those before it, to an object store; services that follow it swap it in."""
    from shared.object_store import ObjectStore

    objects = ObjectStore(url, store)
    objects.push_pictures()
    sent = objects.push()
    if json_:
        output.print_json({"store": str(store), "url": url, "sent": sent})
    else:
        output.stdout.print(f"{url}: {len(sent)} versions sent", highlight=False, markup=False, soft_wrap=True)


@app.command()
def pull(
    url: Annotated[str, typer.Argument(help="Such as s3://bucket/models.", show_default=False)],
    store: StoreArgument = Path("models"),
    json_: output.JsonOption = False,
) -> None:
    """Fetch what is live in an object store, and make it live here."""
    from shared.object_store import ObjectStore

    version = ObjectStore(url, store).pull()
    if version is None:
        raise UserError(f"{url}: no model has been pushed there; 'mts4mm models push {url} STORE' does that")
    _print_live(store, version, json_)


@app.command()
def prune(
    store: StoreArgument = Path("models"),
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay.")] = 7,
    json_: output.JsonOption = False,
) -> None:
    """Remove old versions; never the live one, nor the one before it.

    Where MTS4MM_MODELS_URL names the object store that STORE is a copy of, they go from there too. So goes what
    interrupted trainings would go on from, if it is older than every version that stays.
    """
    url = state_settings().models_url
    removed: dict[str, Any] = {"store": str(store), "removed": artifact.prune(store, keep), "runs": _forget_runs(store)}
    if not json_:
        _print_removed(str(store), [*removed["removed"], *removed["runs"]])
    if url is not None:
        from shared.object_store import ObjectStore

        removed |= {"url": url, "removed_there": ObjectStore(url, store).prune(keep)}
        if not json_:
            _print_removed(url, removed["removed_there"])
    if json_:
        output.print_json(removed)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A version that 'models list' shows.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another one.", show_default=False)],
    store: StoreArgument = Path("models"),
    users: Annotated[int, typer.Option(min=1, help="Users to compare, a sample.")] = 1000,
    json_: output.JsonOption = False,
) -> None:
    """How far the lists of two versions differ for users that both know."""
    from trainer.nightly.difference import difference

    found = difference(artifact.load(store, first), artifact.load(store, second), users)
    if json_:
        output.print_json(vars(found))
        return
    rows = [(name.replace("_", " "), f"{value:,.4g}") for name, value in vars(found).items()]
    output.print_table(f"{first} and {second}", ("", ""), rows)


def _forget_runs(store: Path) -> list[str]:
    created = [entry.manifest.created for entry in artifact.list_versions(store) if entry.manifest is not None]
    return forget_runs(store, min(created)) if created else []


def _switch(store: Path, change: Callable[[], object], json_: bool) -> None:
    """Change the live version; where the store is a copy of an object store, from what is live there, and there too."""
    url = state_settings().models_url
    if url is None:
        change()
    else:
        from shared.object_store import ObjectStore

        objects = ObjectStore(url, store)
        objects.pull()
        with objects.held() as push:
            change()
            try:
                push()
            except SupersededError:
                raise
            except UserError as error:
                told = f"{store}: changed, but the object store could not be told, and its version comes back"
                raise UserError(f"{told}: {error}") from error
    _print_live(store, str(artifact.current_version(store)), json_)


def _print_live(store: Path, version: str, json_: bool) -> None:
    if json_:
        output.print_json({"store": str(store), "live": version})
    else:
        output.stdout.print(f"{store}: {version} is live", highlight=False, markup=False, soft_wrap=True)


def _print_removed(where: str, versions: list[str]) -> None:
    shown = ", ".join(versions) or "nothing"
    output.stdout.print(f"{where}: removed {shown}", highlight=False, markup=False, soft_wrap=True)


def _document(entry: artifact.VersionSummary) -> dict[str, Any]:
    manifest = entry.manifest and entry.manifest.model_dump(mode="json")
    return {"version": entry.version, "current": entry.current, "damage": entry.damage, "manifest": manifest}


def _row(entry: artifact.VersionSummary) -> tuple[object, ...]:
    live = "live" if entry.current else ""
    if entry.manifest is None:
        return (entry.version, live, "-", "-", "-", "-", entry.damage)
    trained_on, recall = entry.manifest.dataset, entry.manifest.metrics.get("test.recall@20")
    shown = "-" if recall is None else f"{recall:.4f}"
    return (entry.version, live, trained_on.name, trained_on.users, trained_on.items, shown, entry.damage or "")


def _damage(store: Path, version: str) -> str | None:
    try:
        artifact.verify(store / version)
    except UserError as error:
        return str(error)
    return None
