"""``mts4mm keys``: who may call the service."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from shared.api_keys import ApiKey, Scope, changing_keys, load_keys, new_key, save_keys
from shared.errors import UserError
from trainer.cli import output

app = typer.Typer(help="Look after the service's API keys.", no_args_is_help=True)

KeysFile = Annotated[Path, typer.Argument(help="Keys file; the service reads it as MTS4MM_KEYS.")]
Name = Annotated[str, typer.Argument(help="Whose key it is; appears in metrics and logs.", show_default=False)]


@app.command("new")
def new(
    file: KeysFile,
    name: Name,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it opens; repeatable. By default read.", show_default=False)
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="The day, or the moment, when it stops to work; in UTC where nothing else is said. By default never.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="A new file to write the key to instead of printing it.", show_default=False)
    ] = None,
    json_: output.JsonOption = False,
) -> None:
    """Make a key, add its digest to the file, and print the key: this once."""
    moment = _ahead(expires)
    secret, entry = new_key(name, scope or [Scope.READ], moment)
    with changing_keys(file):
        others = load_keys(file) if file.exists() else []
        if any(key.name == name for key in others):
            raise UserError(f"{file}: {name!r} is there already: choose another name, or revoke it first")
        if into is not None:
            _write_secret(into, secret)
        try:
            save_keys(file, [*others, entry])
        except UserError:
            if into is not None:
                into.unlink()
            raise
    if json_:
        until = None if moment is None else moment.isoformat()
        shown = {"key": secret} if into is None else {"into": str(into)}
        output.print_json({"name": name, "scopes": entry.scopes, "expires": until, **shown})
    elif into is None:
        output.stdout.print(secret, highlight=False, markup=False, soft_wrap=True)


@app.command("list")
def list_(file: KeysFile, json_: output.JsonOption = False) -> None:
    """The names and scopes in a keys file, and when the keys expire."""
    keys = load_keys(file)
    if json_:
        output.print_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    rows = [(key.name, ", ".join(key.scopes), _until(key)) for key in keys]
    output.print_table(str(file), ("name", "scopes", "expires"), rows)


@app.command("revoke")
def revoke(file: KeysFile, name: Name) -> None:
    """Take a key out of the file; running services notice within seconds."""
    with changing_keys(file):
        keys = load_keys(file)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise UserError(f"{file}: no key {name!r}; it has {', '.join(repr(key.name) for key in keys)}")
        if not left:
            raise UserError(f"{file}: {name!r} is the last key: make another one first, or remove the file")
        save_keys(file, left)


def _ahead(expires: datetime | None) -> datetime | None:
    """The moment with its time zone.

    Raises:
        BadParameter: it is over.
    """
    if expires is None:
        return None
    moment = expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise typer.BadParameter(f"{moment.isoformat()} is over: name a later moment", param_hint="--expires")
    return moment


def _write_secret(path: Path, secret: str) -> None:
    """Write a key where only the owner of the file reads it.

    Raises:
        UserError: there is a file already, or it cannot be written.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secret}\n")
    except FileExistsError:
        raise UserError(f"{path}: is there already: take it away first, or name another file") from None
    except OSError as error:
        raise UserError(f"{path}: the key cannot be written ({error.strerror})") from None


def _until(key: ApiKey) -> str:
    if key.expires is None:
        return "never"
    return key.expires.isoformat(timespec="seconds") + (" (expired)" if key.expired else "")
