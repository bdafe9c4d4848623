"""``mts4mm encode`` and ``mts4mm encoders``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.errors import UsageError, UserError
from trainer.cli import output
from trainer.seeds import MOST_SEED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.encoders import EncoderFolder
    from trainer.encoders.encode import Outcome, Progress
    from trainer.encoders.sources import Items

FAULTS_SHOWN = 20
FIT_EPOCHS = 5

app = typer.Typer(help="The networks that turn words and pictures into features.", no_args_is_help=True)
add_app = typer.Typer(help="Add an encoder to the store.", no_args_is_help=True)
fit_app = typer.Typer(help="Make an encoder of a catalogue's own.", no_args_is_help=True)
app.add_typer(add_app, name="add")
app.add_typer(fit_app, name="fit")


class Kind(StrEnum):
    """What an encoder encodes."""

    TEXT = "text"
    IMAGE = "image"
    ATTRIBUTES = "attributes"
    WORDS = "words"


_ONLY_IF_NAMED = {Kind.ATTRIBUTES: "--attributes category,brand,price", Kind.WORDS: "--words title,description"}


_COLUMNS_OPTIONS = {
    Kind.TEXT: "--text-columns",
    Kind.IMAGE: "--image-columns",
    Kind.ATTRIBUTES: "--attributes",
    Kind.WORDS: "--words",
}


class Pooling(StrEnum):
    """How vectors of tokens become one."""

    MEAN = "mean"
    CLS = "cls"


StoreOption = Annotated[
    Path | None,
    typer.Option(
        envvar="MTS4MM_ENCODERS",
        help="Folder of encoders.",
        show_default="mts4mm/encoders in the user's data folder",
    ),
]
NameArgument = Annotated[str, typer.Argument(help="Name of the encoder.", show_default=False)]


def encode(
    directory: Annotated[Path, typer.Argument(help="Dataset directory with an items table.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to, made a dataset's folder by links to the rest.", show_default="the directory"
        ),
    ] = None,
    only: Annotated[list[Kind] | None, typer.Option(help="Encode this alone; repeatable.")] = None,
    text: Annotated[str | None, typer.Option(help="Text encoder, by name.", show_default="see below")] = None,
    image: Annotated[str | None, typer.Option(help="Image encoder, by name.", show_default="see below")] = None,
    text_columns: Annotated[
        str | None,
        typer.Option(help="Columns of words, joined.", show_default="those of last time, else title,description"),
    ] = None,
    image_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of picture paths; the first that is set.", show_default="those of last time, else image"
        ),
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns of attributes, such as category,brand,price.",
            show_default="those of last time, else none",
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns whose single words count too, such as title,description.",
            show_default="those of last time, else none",
        ),
    ] = None,
    store: StoreOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use.", show_default="OMP_NUM_THREADS, else all cores")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over features made elsewhere.")] = False,
    fit: Annotated[
        bool, typer.Option("--fit/--no-fit", help="Without any image encoder, fit one to the catalogue's own pictures.")
    ] = True,
    json_: output.JsonOption = False,
) -> None:
    """Turn the words, pictures and attributes of a catalogue into features: <modality>_feat.npy.

    Only what is new or has changed is encoded, and an interrupted run goes on with the same command. What cannot be
    read is named, and counts as missing. Without --text or --image the encoder is taken that made the features last
    time, else the only one in the store, else minilm or efficientnet-lite0 from its package. Without the latter's, a
    small network is fitted to the pictures first, see 'mts4mm encoders fit image'. Attributes and words need no
    network: numbers, years, sets of values and words each get numbers of their own.
    """
    said = {Kind.TEXT: text_columns, Kind.IMAGE: image_columns, Kind.ATTRIBUTES: attributes, Kind.WORDS: words}
    columns = {kind: _columns(_COLUMNS_OPTIONS[kind], names) for kind, names in said.items() if names is not None}
    names = {Kind.TEXT: text, Kind.IMAGE: image}
    outcomes, skipped = encode_catalogue(
        directory,
        out or directory,
        {kind.value: names.get(kind) for kind in _wanted(only, columns, out or directory)},
        {kind.value: names for kind, names in columns.items()},
        store,
        threads=threads or usual_threads(),
        replace=replace,
        fit=fit,
    )
    _print_outcomes(outcomes, skipped, out or directory, as_json=json_)
    if not outcomes:
        raise UserError(f"{directory}: nothing could be encoded, see above")


def _columns(option: str, names: str) -> list[str]:
    """Names of columns as an option gives them, between commas.

    Raises:
        UsageError: there are none.
    """
    columns = [name.strip() for name in names.split(",") if name.strip()]
    if not columns:
        raise UsageError(f"{option} names no column; write them as in {option} title,brand")
    return columns


def _wanted(only: list[Kind] | None, columns: Mapping[Kind, list[str]], out: Path) -> list[Kind]:
    """The modalities to encode; attributes and words only if there were some last time, or are named now.

    Raises:
        UsageError: one of these is wanted, and nobody has ever said of which columns.
    """
    from trainer.encoders.choice import choose_columns

    unknown = {kind for kind in _ONLY_IF_NAMED if kind not in columns and not choose_columns(kind.value, out)}
    for kind in only or []:
        if kind in unknown:
            raise UsageError(f"--only {kind.value}: name their columns, such as {_ONLY_IF_NAMED[kind]}")
    return [kind for kind in only or list(Kind) if kind not in unknown]


def encode_catalogue(
    directory: Path,
    out: Path,
    names: dict[str, str | None],
    columns: dict[str, list[str]],
    store: Path | None,
    *,
    threads: int,
    replace: bool = False,
    fit: bool = False,
) -> tuple[list[Outcome], dict[str, str]]:
    """Encode behind progress bars; returns what was done by modality, and why others were left out.

    A modality that ``columns`` does not name is read from those of last time, else from the usual.
    With ``fit``, an image encoder is fitted where there is none, once the words are encoded.

    Raises:
        UserError: the table lacks a column that ``columns`` names, or that attributes or words are wanted of, or a
            modality alone cannot be encoded.
    """
    from trainer.encoders.attributes import (
        ATTRIBUTES,
        WORDS,
        AttributeSource,
        fit_attributes,
        fit_words,
        silent_columns,
    )
    from trainer.encoders.choice import NoEncoderError, choose_columns, choose_encoder
    from trainer.encoders.encode import Source, encode_modality
    from trainer.encoders.linked import link_dataset
    from trainer.encoders.sources import PictureSource, TextSource, read_items
    from trainer.encoders.store import default_store, lawful_name

    items = read_items(directory)
    sources: dict[str, Callable[[Items, list[str]], Source]] = {
        "text": TextSource,
        "image": PictureSource,
        ATTRIBUTES: AttributeSource,
        WORDS: AttributeSource,
    }
    fits = {ATTRIBUTES: fit_attributes, WORDS: fit_words}
    sought = {modality: columns.get(modality) or choose_columns(modality, out) for modality in names}
    for modality in names:
        if modality in columns or modality in fits:
            _require_all(items, _COLUMNS_OPTIONS[Kind(modality)], sought[modality])
    link_dataset(directory, out, list(names))
    outcomes, skipped = [], {}
    for modality, name in names.items():
        found = items.columns(sought[modality])
        if not found:
            skipped[modality] = f"the items table has no column {' or '.join(sought[modality])}"
            continue
        where = store or default_store()
        try:
            try:
                if modality in fits:
                    encoder = fits[modality](items, found)
                else:
                    encoder = choose_encoder(where, modality, name, out)
            except NoEncoderError:
                if not fit:
                    raise
                encoder = _fit_to(out, lawful_name(directory.resolve().name), found, where)
        except UserError as error:
            if name is not None or len(names) == 1:
                raise
            skipped[modality] = str(error)
            continue
        with _shown_progress(f"encoding {modality}") as progress:
            outcome = encode_modality(
                modality,
                sources[modality](items, found),
                items.ids,
                encoder,
                out,
                threads=threads,
                asked=sought[modality],
                overwrite=replace,
                progress=progress,
            )
        outcome.silent = silent_columns(encoder, items, found)
        outcomes.append(outcome)
    return outcomes, skipped


def _require_all(items: Items, option: str, columns: Sequence[str]) -> None:
    if missing := items.without(columns):
        known = sorted({name for record in items.records for name in record})
        raise UserError(f"{option}: the items table has no column {', '.join(missing)}; it has {', '.join(known)}")


def _fit_to(directory: Path, name: str, columns: list[str], store: Path) -> EncoderFolder:
    """Fit an image encoder to a catalogue, put it into the store, and say so."""
    from trainer.encoders.fit import fit_network, learnable, store_fitted
    from trainer.encoders.store import free_place

    free_place(store, "image", name)
    pixels, words = read_pictures_and_words(directory, columns)
    pictures = learnable(pixels, words)
    output.say(
        "no image encoder: fitting a small network to the catalogue's own pictures and words, which takes minutes "
        "(--no-fit leaves pictures out; pip install 'mts4mm[image]' brings a better one)"
    )
    with _shown_progress("fitting the network") as progress:
        return store_fitted(fit_network(pictures, 0, FIT_EPOCHS, progress), store, name)


def usual_threads() -> int:
    """``OMP_NUM_THREADS``, else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))


@add_app.command("text")
def add_text(
    name: NameArgument,
    folder: Annotated[
        Path | None, typer.Option(help="A sentence transformer's folder.", show_default="minilm: from its package")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="A network as ONNX, instead.", show_default=False)] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Its tokenizer.json.", show_default=False)] = None,
    max_tokens: Annotated[int, typer.Option(min=2, max=8192, help="Of --onnx: longer texts are cut.")] = 256,
    pooling: Annotated[Pooling, typer.Option(help="Of --onnx, if it answers by token.")] = Pooling.MEAN,
    store: StoreOption = None,
    json_: output.JsonOption = False,
) -> None:
    """A network over words: 'minilm' (all-MiniLM-L6-v2, extra 'text'), or one of your own."""
    from trainer.encoders.choice import add_packaged
    from trainer.encoders.sentence_transformer import MINILM, add_sentence_transformer
    from trainer.encoders.store import add_text_network, default_store, encoder_place

    where = store or default_store()
    if onnx is not None and folder is None:
        if tokenizer is None:
            raise UsageError("--onnx needs --tokenizer FILE, the tokenizer.json of the same model")
        add_text_network(where, name, onnx, tokenizer, {"max_tokens": max_tokens, "pooling": pooling.value})
    elif folder is not None and onnx is None:
        add_sentence_transformer(folder, encoder_place(where, "text", name), name)
    elif name == MINILM and folder is None:
        add_packaged(where, "text")
    else:
        raise UsageError(f"give --folder or --onnx for {name}; only 'minilm' comes with a package")
    _print_added(where, "text", name, as_json=json_)


@add_app.command("image")
def add_image(
    file: Annotated[
        Path, typer.Argument(help="The network as ONNX, or efficientnet-lite0, from its package.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="In the store.", show_default="the file's name")] = None,
    preprocessing: Annotated[
        Path | None,
        typer.Option(help="How pictures are prepared, YAML or JSON.", show_default="224 x 224, as for ImageNet"),
    ] = None,
    store: StoreOption = None,
    json_: output.JsonOption = False,
) -> None:
    """A network over pictures: 'efficientnet-lite0' (extra 'image'), or one of your own.

    docs/encoders.md shows how to export one, and the keys of --preprocessing.
    """
    from shared.encoders.specs import read_preprocessing
    from trainer.encoders.choice import add_packaged
    from trainer.encoders.efficientnet import EFFICIENTNET
    from trainer.encoders.store import add_image_network, default_store, lawful_name

    where, called = store or default_store(), name or lawful_name(file.stem)
    if str(file) == EFFICIENTNET and not file.exists():
        if name is not None or preprocessing is not None:
            raise UsageError(f"{EFFICIENTNET} has its own name and preprocessing: leave out --name and --preprocessing")
        add_packaged(where, "image")
        _print_added(where, "image", EFFICIENTNET, as_json=json_)
        return
    settings: dict[str, Any] = {}
    if preprocessing is not None:
        try:
            settings = read_preprocessing(preprocessing.read_text(encoding="utf-8"), str(preprocessing))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{preprocessing}: cannot be read ({error})") from error
    add_image_network(where, called, file, settings)
    _print_added(where, "image", called, as_json=json_)


@fit_app.command("image")
def fit_image(
    directory: Annotated[
        Path, typer.Argument(help="Dataset directory whose words are encoded already.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="In the store.", show_default="the directory's name")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each picture is looked at.")] = FIT_EPOCHS,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the network and its views of the pictures.")] = 0,
    image_columns: Annotated[str, typer.Option(help="Columns of picture paths; the first that is set.")] = "image",
    store: StoreOption = None,
    json_: output.JsonOption = False,
) -> None:
    """Train a small network over pictures on a catalogue's own, against the vectors of its words.

    For catalogues whose owner has no network; 'mts4mm bench encoders' tells whether it is worth it.
    """
    from trainer.encoders.fit import fit_network, learnable, store_fitted
    from trainer.encoders.store import default_store, free_place, lawful_name

    where, called = store or default_store(), name or lawful_name(directory.resolve().name)
    free_place(where, "image", called)
    pixels, words = read_pictures_and_words(directory, _columns(_COLUMNS_OPTIONS[Kind.IMAGE], image_columns))
    with _shown_progress("fitting the network") as progress:
        fitted = fit_network(learnable(pixels, words), seed, epochs, progress)
    store_fitted(fitted, where, called)
    _print_added(where, "image", called, as_json=json_)


def read_pictures_and_words(directory: Path, columns: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels (items, 3, side, side) behind a progress bar, and text features (items, any), NaN where there is none.

    Raises:
        UserError: the items have no pictures, or their words are not encoded yet.
    """
    import numpy as np

    from trainer.encoders.features_manifest import features_path
    from trainer.encoders.fit import read_pixels
    from trainer.encoders.sources import PictureSource, read_items

    items = read_items(directory)
    if missing := items.without(columns):
        raise UserError(f"{directory}: the items table has no column {', '.join(missing)} with pictures to learn from")
    path = features_path(directory, "text")
    if not path.exists():
        raise UserError(
            f"{path}: is missing; encode the words first: mts4mm encode {quote(str(directory))} --only text"
        )
    words = np.load(path, allow_pickle=False).astype(np.float32)
    if words.ndim != 2 or len(words) != len(items.ids):
        raise UserError(
            f"{path}: has not one row an item; encode again: mts4mm encode {quote(str(directory))} --only text"
        )
    with _shown_progress("reading pictures") as progress:
        pixels = read_pixels(PictureSource(items, items.columns(columns)), len(items.ids), progress)
    return pixels, words


@app.command("list")
def list_(store: StoreOption = None, json_: output.JsonOption = False) -> None:
    """The encoders in the store."""
    from trainer.encoders.store import default_store, list_encoders

    where = store or default_store()
    entries = list_encoders(where)
    if json_:
        output.print_json(
            [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "digest": each.encoder and each.encoder.digest,
                    "spec": each.encoder and each.encoder.spec.model_dump(mode="json"),
                    "damage": each.damage,
                }
                for each in entries
            ]
        )
        return
    rows = [
        (
            each.kind,
            each.name,
            each.encoder.spec.width if each.encoder else "-",
            each.encoder.digest[:12] if each.encoder else "-",
            each.damage or "",
        )
        for each in entries
    ]
    output.print_table(str(where), ("kind", "name", "width", "digest", "damage"), rows)


@app.command()
def remove(
    kind: Annotated[Kind, typer.Argument(help="text or image.", show_default=False)],
    name: NameArgument,
    store: StoreOption = None,
    json_: output.JsonOption = False,
) -> None:
    """Remove an encoder from the store; datasets and artefacts made with it keep theirs."""
    from trainer.encoders.store import default_store, remove_encoder

    remove_encoder(store or default_store(), kind.value, name)
    if json_:
        output.print_json({"kind": kind.value, "removed": name})
    else:
        output.say(f"removed the {kind.value} encoder {name}")


@contextmanager
def _shown_progress(what: str) -> Iterator[Progress]:
    with output.progress_bars() as bars:
        task = bars.add_task(what, total=1, note="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _print_added(store: Path, kind: str, name: str, *, as_json: bool) -> None:
    from trainer.encoders.store import find_encoder

    encoder = find_encoder(store, kind, name)
    if as_json:
        output.print_json({"kind": kind, "digest": encoder.digest, **encoder.spec.model_dump(mode="json")})
    else:
        output.say(f"added the {kind} encoder {name}: vectors of {encoder.spec.width} numbers")


def _print_outcomes(outcomes: list[Outcome], skipped: dict[str, str], out: Path, *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {"directory": str(out), "modalities": [asdict(each) for each in outcomes], "skipped": skipped}
        )
        return
    for each in outcomes:
        for item, fault in list(each.faults.items())[:FAULTS_SHOWN]:
            output.say(f"{each.modality} of item {item}: {fault}")
        if len(each.faults) > FAULTS_SHOWN:
            output.say(f"and {len(each.faults) - FAULTS_SHOWN} more; {each.modality}_feat.json lists them all")
        for column, reason in each.silent.items():
            output.say(f"{each.modality}: column {column} {reason}")
    for modality, reason in skipped.items():
        output.say(f"{modality} was left out: {reason}")
    rows = [
        (each.modality, each.encoder, each.width, each.items, each.encoded, each.reused, each.missing, len(each.faults))
        for each in outcomes
    ]
    columns = ("modality", "encoder", "width", "items", "encoded", "kept", "without", "of these faulty")
    output.print_table(str(out), columns, rows)
