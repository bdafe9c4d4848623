"""``mts4mm keys``: who may call the service."""

from pathlib import Path
from typing import Annotated

import typer

from shared.api_keys import Scope, load_keys, new_key, save_keys
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
    json_: output.JsonOption = False,
) -> None:
    """Make a key, add its digest to the file, and print the key: this once."""
    secret, entry = new_key(name, scope or [Scope.READ])
    save_keys(file, [*(load_keys(file) if file.exists() else []), entry])
    if json_:
        output.print_json({"name": name, "scopes": entry.scopes, "key": secret})
    else:
        output.stdout.print(secret, highlight=False, markup=False, soft_wrap=True)


@app.command("list")
def list_(file: KeysFile, json_: output.JsonOption = False) -> None:
    """The names and scopes in a keys file."""
    keys = load_keys(file)
    if json_:
        output.print_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    output.print_table(str(file), ("name", "scopes"), [(key.name, ", ".join(key.scopes)) for key in keys])


@app.command("revoke")
def revoke(file: KeysFile, name: Name) -> None:
    """Take a key out of the file; running services notice within seconds."""
    keys = load_keys(file)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise UserError(f"{file}: no key {name!r}; it has {', '.join(repr(key.name) for key in keys)}")
    if not left:
        raise UserError(f"{file}: {name!r} is the last key: make another one first, or remove the file")
    save_keys(file, left)
