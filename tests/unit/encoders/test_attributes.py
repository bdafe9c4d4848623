"""Attributes as a modality: what is read, how blocks are made, and what a catalogue teaches the encoder."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from shared.encoders import AttributesSpec, RawItem, open_encoder, read_folder, write_folder
from shared.encoders.attributes import (
    Named,
    Number,
    Words,
    attributes_text,
    attributes_vector,
    number_in,
    values_in,
    words_in,
    year_in,
)
from shared.encoders.folder import DESCRIPTION
from shared.errors import UsageError, UserError
from trainer.cli.app import app
from trainer.cli.encoders import encode_catalogue
from trainer.dataset import load_dataset
from trainer.encoders.attributes import MOST_PLACES, attribute_of, fit_attributes, fit_words
from trainer.encoders.features_manifest import encoder_path, read_manifest
from trainer.encoders.sources import read_items

Catalogue = Callable[..., Path]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
finite = st.floats(allow_nan=False, allow_infinity=False)
ALL_KINDS = (
    Named(column="genre", names=("comedy", "drama")),
    Named(kind="words", column="title", names=("mug", "red")),
    Number(column="price", knots=(0.0, 10.0, 30.0)),
    Number(kind="year", column="made", knots=(1990.0, 1995.0, 2000.0)),
    Words(columns=("title", "maker"), names=("mug", "rag", "smith"), weights=(1.0, 3.0, 4.0)),
)
COLUMNS_OF_ALL = [column for attribute in ALL_KINDS for column in attribute.columns]


def weighed(weights: list[float]) -> dict[str, Any]:
    return {"kind": "weighed_words", "columns": ["title"], "names": ["mug"], "weights": weights}


def vector(record: dict[str, Any]) -> list[float] | None:
    text = attributes_text(record, COLUMNS_OF_ALL)
    made = None if text is None else attributes_vector(ALL_KINDS, text)
    return None if made is None else made.tolist()


def test_each_attribute_is_a_block_of_length_one() -> None:
    half, tenth = 0.5**0.5, 1 / math.hypot(0.75, 0.25)
    record = {"Genre": "Drama|Comedy|War", "title": "<b>Red</b> rag", "PRICE": "15", "made": "1996, 2001"}
    record |= {"Maker": "Smith & son"}
    expected = [half, half, 0, 1, 0, 0.75 * tenth, 0.25 * tenth, 0, 0, 1, 0, 0.6, 0.8]
    assert vector(record) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"genre": ["Comedy"]}, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"genre": "horror", "price": -5}, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"price": 1e300}, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        ({"made": 1990}, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
        ({"genre": "horror"}, None),
        ({"genre": " ", "title": None, "price": "cheap", "made": []}, None),
        ({"price": float("nan"), "made": 12345}, None),
        ({}, None),
    ],
)
def test_what_is_lacking_or_unknown_is_a_block_of_zeros(record: dict[str, Any], expected: list[float] | None) -> None:
    assert vector(record) == expected


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["genre", "title", "price", "made", "other"]), anything, max_size=5))
def test_any_record_gives_blocks_of_length_one_or_zero(record: dict[str, Any]) -> None:
    found = vector(record)
    if found is None:
        return
    for block in np.split(np.array(found), [2, 4, 7]):
        assert np.linalg.norm(block) == pytest.approx(1, abs=1e-5) or not block.any()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(anything)
def test_reading_never_fails(value: object) -> None:
    number, year = number_in(value), year_in(value)
    assert number is None or math.isfinite(number)
    assert year is None or 1800 <= year < 2100
    assert all(text == text.strip().lower() != "" for text in values_in(value))
    assert all(len(word) > 1 for word in words_in(value))


@given(st.lists(finite, min_size=2, max_size=6, unique=True), finite)
@example([2.2e-311, -2.2e-309], 0.0)
@example([-1.7e308, 1.7e308], 0.0)
def test_a_number_is_shared_out_between_its_two_knots(knots: list[float], number: float) -> None:
    ordered = tuple(sorted(knots))
    block = Number(column="n", knots=ordered).block(number)
    assert block.sum() == pytest.approx(1, abs=1e-5)
    assert np.count_nonzero(block) <= 2
    nearest = min(max(number, ordered[0]), ordered[-1])
    rounding = max(map(abs, ordered)) * 1e-6 + 1e-300
    assert block @ np.array(ordered) == pytest.approx(nearest, rel=1e-3, abs=rounding)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"width": 11}, "width is 11, and the attributes have 13 numbers together"),
        ({"attributes": []}, "at least 1 item"),
        ({"attributes": [{"kind": "number", "column": "n", "knots": [1, 1]}], "width": 2}, "knots must rise"),
        ({"attributes": [{"kind": "number", "column": "n", "knots": [0, float("inf")]}], "width": 2}, "finite"),
        ({"attributes": [{"kind": "colour", "column": "n"}]}, "kind"),
        ({"attributes": [weighed([1.0, 2.0])], "width": 1}, "2 weights for 1 names"),
        ({"attributes": [weighed([0.0])], "width": 1}, "greater than 0"),
    ],
)
def test_a_damaged_description_is_refused_by_name(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    spec = AttributesSpec(name="attributes", revision="1", width=13, attributes=ALL_KINDS)
    write_folder(tmp_path / "encoder", spec, {})
    path = tmp_path / "encoder" / DESCRIPTION
    assert read_folder(tmp_path / "encoder").spec == spec
    document = json.loads(path.read_bytes())
    document["spec"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=complaint) as raised:
        read_folder(tmp_path / "encoder")
    assert str(path) in str(raised.value)


COLUMNS: dict[str, list[object]] = {
    "genre": ["Drama|War", "War", "Drama", "War|Drama", "Comedy", None, "Comedy|War", "Comedy"] * 5,
    "brand": [7, 8, 9, 7] * 10,
    "price": [float(n) for n in range(40)],
    "sparse": [0.0] * 20 + [float(n) for n in range(20)],
    "made": list(range(1980, 2020)),
    "title": [f"Film number {n} ({1980 + n % 9})" for n in range(40)],
    "about": [f"a {colour} thing no. {n}" for n, colour in enumerate(["red", "green", "blue", "grey"] * 10)],
    "serial": [f"X{n}Y" for n in range(40)],
    "nothing": [None] * 40,
    "same year": ["(1999)"] * 40,
}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("genre", Named(column="genre", names=("comedy", "drama", "war"))),
        ("brand", Named(column="brand", names=("7", "8", "9"))),
        ("made", Number(kind="year", column="made", knots=tuple(np.linspace(1980, 2019, 9)))),
        ("title", Number(kind="year", column="title", knots=(1980.0, 1984.0, 1988.0))),
        ("about", Named(kind="words", column="about", names=("blue", "green", "grey", "red"))),
        ("serial", None),
        ("nothing", None),
        ("same year", Named(column="same year", names=("(1999)",))),
    ],
)
def test_a_column_is_read_as_what_most_of_it_is(column: str, expected: object) -> None:
    assert attribute_of(column, COLUMNS[column]) == expected


@pytest.mark.parametrize("column", ["price", "sparse"])
def test_as_many_items_lie_between_two_knots_as_between_others(column: str) -> None:
    found = attribute_of(column, COLUMNS[column])
    assert isinstance(found, Number)
    assert found.kind == "number"
    assert (found.knots[0], found.knots[-1]) == (min(COLUMNS[column]), max(COLUMNS[column]))
    between = np.histogram(COLUMNS[column], found.knots)[0]
    assert column == "sparse" or between.max() - between.min() <= 1


@pytest.mark.parametrize("kind", ["values", "words"])
def test_what_was_fitted_before_names_were_called_so_is_read(kind: str) -> None:
    found = Named.model_validate({"kind": kind, "column": "made of", kind: ["glass", "tin"]})
    assert found == Named(kind=kind, column="made of", names=("glass", "tin"))
    assert Named.model_validate_json(found.model_dump_json()) == found


def test_of_many_values_the_commonest_are_kept() -> None:
    values = [f"tag{n}" for n in range(MOST_PLACES + 5) for _ in range(3)] + ["tag7", "often"] * 4
    found = attribute_of("tags", values)
    assert isinstance(found, Named)
    assert len(found.names) == MOST_PLACES
    assert {"often", "tag7"} <= set(found.names)


def test_a_catalogue_is_encoded_and_again_as_it_was_then(catalogue: Catalogue) -> None:
    shop = catalogue(
        *(
            {"item_id": f"i{n}", "Kind": kind, "price": price, "title": "mug"}
            for n, (kind, price) in enumerate([("cup", "1"), ("cup", ""), ("lamp", ""), ("lamp", "2"), ("", "3")] * 3)
        )
    )
    (outcome,), skipped = encode_catalogue(
        shop, shop, {"attributes": None}, {"attributes": ["kind", "price"]}, None, threads=1
    )
    assert (outcome.encoded, outcome.missing, skipped) == (15, 0, {})
    found = np.load(shop / "attributes_feat.npy")
    assert found.shape == (15, 5)  # two kinds, three prices
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert found[0] @ found[1] == pytest.approx(0.5**0.5)
    (again,), _ = encode_catalogue(shop, shop, {"attributes": None}, {}, None, threads=1)
    assert (again.encoded, again.reused) == (0, 15)
    assert read_manifest(shop, "attributes").fields == ("Kind", "price")
    encoder = open_encoder(read_folder(encoder_path(shop, "attributes")))
    item = RawItem({"KIND": "cup", "price": 1}, lambda: None)
    assert encoder.encode_item(item) == pytest.approx(found[0])
    assert encoder.encode_item(RawItem({"kind": "sofa"}, lambda: None)) is None


@pytest.mark.parametrize(
    ("modality", "such_as"), [("attributes", "category,brand,price"), ("words", "title,description")]
)
def test_the_command_asks_for_columns_and_names_those_that_are_not_there(
    catalogue: Catalogue, modality: str, such_as: str
) -> None:
    shop = catalogue(
        *({"item_id": f"i{n}", "kind": kind, "serial": f"no{n}"} for n, kind in enumerate(["cup", "mug"] * 4))
    )
    (shop / "interactions.csv").write_text("user_id,item_id\nu1,i1\nu1,i2\nu2,i1\nu2,i3\n")
    for error, complaint, *more in (
        (UsageError, f"--{modality} {such_as}"),
        (UserError, f"--{modality}: the items table has no column colour; it has item_id, kind", "kind,colour"),
        (UserError, f"in common in serial; choose other columns with --{modality}", "serial"),
    ):
        given = [word for columns in more for word in (f"--{modality}", columns)]
        outcome = CliRunner().invoke(app, ["encode", str(shop), "--only", modality, *given])
        assert isinstance(outcome.exception, error)
        assert complaint in str(outcome.exception)
    run = CliRunner().invoke
    made = run(app, ["encode", str(shop), "--only", modality, f"--{modality}", "kind", "--json"])
    assert made.exit_code == 0
    assert json.loads(made.output)["modalities"][0]["encoded"] == 8
    assert load_dataset(shop).encoders.keys() == {modality}
    assert modality in run(app, ["encode", str(shop), "--json", "--no-fit"]).output  # they are known by now


def test_words_are_a_modality_of_their_own_and_the_rarer_count_more(catalogue: Catalogue) -> None:
    texts = (("Blue mug (1999)", "Glass"), ("Blue lamp", ""), ("Red mug", "cup"), ("Red cup", ""), ("Red", "glass cup"))
    rows = [*texts, *texts, ("Mug", None), ("", "-")]
    shop = catalogue(*({"item_id": f"i{n}", "Title": title, "of": of} for n, (title, of) in enumerate(rows)))
    (outcome,), _ = encode_catalogue(shop, shop, {"words": None}, {"words": ["title", "of"]}, None, threads=1)
    assert (outcome.encoded, outcome.missing) == (9, 3)
    folder = read_folder(encoder_path(shop, "words"))
    (words,) = folder.spec.attributes
    assert words.names == ("blue", "glass", "mug")  # "red" and "cup" are in more than half, "lamp" and "1999" in two
    blue, mug = math.log(12 / 5) + 1, math.log(12 / 6) + 1
    assert words.weights == pytest.approx([blue, blue, mug], abs=1e-4)
    made = open_encoder(folder).encode_item(RawItem({"title": "<b>Mug</b>, a mug", "OF": "blue cups"}, lambda: None))
    assert made == pytest.approx([blue / math.hypot(blue, mug), 0, mug / math.hypot(blue, mug)], abs=1e-4)
    assert np.load(shop / "words_feat.npy").shape == (12, 3)


def test_a_single_separator_makes_no_set_of_a_column_of_titles() -> None:
    titles = [f"{colour} thing no. {n}" for n, colour in enumerate(["red", "green", "blue", "grey"] * 10)]
    found = attribute_of("title", [*titles, "a | b"])
    assert found == Named(kind="words", column="title", names=("blue", "green", "grey", "red"))


@pytest.mark.parametrize("modality", ["attributes", "words"])
def test_a_column_that_says_nothing_is_named_with_how_to_mend_it(catalogue: Catalogue, modality: str) -> None:
    shop = catalogue(
        *(
            {"item_id": f"i{n}", "kind": ("cup", "mug", "pot")[n % 3], "serial": f"no{n}", "price": f"${n}.{n + 10}"}
            | {"nothing": ""}
            for n in range(12)
        )
    )
    columns = ["--only", modality, f"--{modality}", "kind,serial,price,nothing"]
    printed = CliRunner().invoke(app, ["encode", str(shop), *columns])
    assert printed.exit_code == 0, printed.exception
    said = " ".join(printed.output.split())
    assert f"{modality}: column serial says nothing: no 3 items share a value or word" in said
    assert f"{modality}: column price says nothing: '$0.10' is no number" in said
    assert f"{modality}: column nothing is empty everywhere" in said
    made = json.loads(CliRunner().invoke(app, ["encode", str(shop), *columns, "--json"]).stdout)
    assert made["modalities"][0]["silent"].keys() == {"serial", "price", "nothing"}


def test_a_catalogue_without_anything_in_common_names_its_columns(catalogue: Catalogue) -> None:
    items = read_items(catalogue(*({"item_id": f"i{n}", "serial": f"no{n}"} for n in range(9))))
    with pytest.raises(UserError, match=r"no 3 items have anything in common in serial; choose other"):
        fit_attributes(items, ["serial"])
    with pytest.raises(UserError, match=r"in serial; choose other columns with --words"):
        fit_words(items, ["serial"])
