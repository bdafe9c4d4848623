"""What load_dataset makes of sound directories, and that it refuses what validation calls an error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import UserError
from trainer.dataset import TEST, TRAIN, VALIDATION, Dataset, SplitSpec, load_dataset, validate_directory

Row = dict[str, Any]


def triples(dataset: Dataset) -> set[tuple[str, str, int]]:
    return {
        (dataset.user_ids[user], dataset.item_ids[item], int(label))
        for user, item, label in zip(dataset.users, dataset.items, dataset.labels, strict=True)
    }


@pytest.mark.parametrize(
    "name", ["interactions.csv", "shop.inter", "interactions.parquet", "clicks.csv", "clicks.parquet"]
)
def test_every_format_gives_the_same_dataset(shop, rows: list[Row], name: str) -> None:
    expected = load_dataset(shop.directory)
    (shop.directory / "interactions.csv").unlink()
    shop.interactions(rows, name)
    found = load_dataset(shop.directory)
    assert found.fingerprint == expected.fingerprint
    assert triples(found) == {(row["user_id"], row["item_id"], row["x_label"]) for row in rows}
    assert found.split == SplitSpec("given")


@pytest.mark.parametrize(
    "header",
    [
        "userID,itemID,time,rating,x_label",
        "user,item,ts,weight,xLabel",
        "user,item,Created At,weight,xLabel",
        "user,item,date,weight,xLabel",
        "user_id:token,item_id:token,timestamp:float,rating:float,x_label:float",
    ],
)
def test_usual_column_names_are_understood(shop, header: str) -> None:
    expected = load_dataset(shop.directory)
    path = shop.directory / "interactions.csv"
    _, body = path.read_text().split("\n", 1)
    path.write_text(f"{header}\n{body}")
    assert load_dataset(shop.directory).fingerprint == expected.fingerprint


def test_integer_ids_in_parquet_and_crlf_and_bom_in_csv_change_nothing(shop, rows: list[Row]) -> None:
    expected = load_dataset(shop.directory).fingerprint
    text = (shop.directory / "interactions.csv").read_bytes()
    shop.text("interactions.csv", b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert load_dataset(shop.directory).fingerprint == expected
    (shop.directory / "interactions.csv").unlink()
    shop.interactions(
        [row | {"user_id": int(row["user_id"]), "item_id": int(row["item_id"])} for row in rows], "x.parquet"
    )
    assert load_dataset(shop.directory).fingerprint == expected


def test_timestamps_in_seconds_milliseconds_iso_and_datetimes_agree(empty_shop, rows: list[Row]) -> None:
    def loaded(name: str, convert) -> list[float]:  # type: ignore[no-untyped-def]
        path = empty_shop.interactions([row | {"timestamp": convert(row["timestamp"])} for row in rows], name)
        timestamps = load_dataset(empty_shop.directory).timestamps
        path.unlink()
        assert timestamps is not None
        return timestamps.tolist()

    moment = np.datetime64("1970-01-01T00:00:00", "s")
    stamp = lambda seconds: str(moment + seconds)  # noqa: E731
    ordered = sorted(rows, key=lambda row: (int(row["user_id"]), int(row["item_id"])))
    expected = [float(row["timestamp"]) for row in ordered]
    assert loaded("interactions.csv", int) == expected
    assert loaded("interactions.csv", lambda seconds: seconds * 1000) == expected
    assert loaded("interactions.csv", stamp) == expected
    assert loaded("interactions.csv", lambda seconds: stamp(seconds).replace("T", " ") + ".000Z") == expected
    assert loaded("interactions.csv", lambda seconds: stamp(seconds + 7200) + "+02:00") == expected
    assert loaded("interactions.parquet", lambda seconds: (moment + seconds).item()) == expected


def test_ids_are_verbatim_strings_in_a_deterministic_order(empty_shop) -> None:
    empty_shop.text("interactions.csv", "user,item\nb,10\nb,9\na,9\n007,9\n7,9\nñ,10\n")
    dataset = load_dataset(empty_shop.directory)
    assert dataset.user_ids == ["007", "7", "a", "b", "ñ"]
    assert dataset.item_ids == ["9", "10"]


def test_without_a_table_items_are_the_rows_of_the_features(shop, rows: list[Row]) -> None:
    shop.interactions([row for row in rows if row["item_id"] != "2"])
    dataset = load_dataset(shop.directory)
    assert dataset.item_ids == ["0", "1", "2", "3", "4", "5"]
    assert dataset.catalogue is None
    assert 2 not in dataset.items


def test_with_a_table_items_are_its_rows_cold_ones_included(shop, rows: list[Row]) -> None:
    order = ["z", "y", "cold", "x", "w", "v"]
    names = dict(zip("01345", ["v", "w", "x", "y", "z"], strict=True))
    shop.items(order)
    shop.interactions([row | {"item_id": names[row["item_id"]]} for row in rows if row["item_id"] != "2"])
    features = np.arange(18, dtype=np.float64).reshape(6, 3) + 1
    shop.features(features)
    dataset = load_dataset(shop.directory)
    assert dataset.item_ids == order
    assert dataset.catalogue == [{"item_id": item, "title": f"Title {item}"} for item in order]
    np.testing.assert_array_equal(dataset.modalities["image"].features, features)
    assert dataset.interactions(TRAIN).shape == (6, 6)
    assert order.index("cold") not in dataset.items


def test_interactions_are_binary_matrices_that_partition_the_pairs(shop, rows: list[Row]) -> None:
    dataset = load_dataset(shop.directory)
    for label in (TRAIN, VALIDATION, TEST):
        expected = np.zeros((6, 6), np.float32)
        for row in rows:
            if row["x_label"] == label:
                expected[int(row["user_id"]), int(row["item_id"])] = 1
        matrix = dataset.interactions(label)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix.toarray(), expected)


def test_a_repeated_pair_is_merged_into_its_earliest_event(empty_shop) -> None:
    empty_shop.text(
        "interactions.csv",
        "user,item,ts,weight\na,x,1600000300,3\na,y,1600000000,1\na,x,1600000100,1\na,x,1600000200,2\na,z,1600000000,1\n",
    )
    dataset = load_dataset(empty_shop.directory)
    assert dataset.timestamps is not None
    assert dataset.weights is not None
    assert dataset.items.tolist() == [0, 1, 2]
    assert dataset.timestamps.tolist() == [1600000100, 1600000000, 1600000000]
    assert dataset.weights.tolist() == [1, 1, 1]


events = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["a", "b", "ç", "10", "9"]),
            "item_id": st.sampled_from([f"item {number}" for number in range(12)]),
            "timestamp": st.integers(1_600_000_000, 1_600_000_005),
            "weight": st.sampled_from([0.5, 1.0, 2.0]),
        }
    ),
    min_size=1,
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(events, st.randoms(use_true_random=False), st.sampled_from(["random", "global_time"]))
def test_the_order_of_rows_changes_nothing(empty_shop, rows: list[Row], shuffle, kind: Any) -> None:
    empty_shop.interactions(rows)
    before = load_dataset(empty_shop.directory, SplitSpec(kind, seed=7))
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    empty_shop.interactions(shuffled)
    after = load_dataset(empty_shop.directory, SplitSpec(kind, seed=7))
    assert after.fingerprint == before.fingerprint
    assert triples(after) == triples(before)
    pairs = [(user, item) for user, item, _ in triples(after)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(row["user_id"], row["item_id"]) for row in rows}


def test_without_x_label_the_split_is_random_with_seed_zero(empty_shop, rows: list[Row]) -> None:
    empty_shop.interactions([{key: row[key] for key in ("user_id", "item_id")} for row in rows])
    dataset = load_dataset(empty_shop.directory)
    assert dataset.split == SplitSpec("random", 0)
    assert dataset.fingerprint == load_dataset(empty_shop.directory, SplitSpec("random", 0)).fingerprint
    assert dataset.timestamps is None
    assert dataset.weights is None


def test_a_chosen_split_overrides_x_label(shop, rows: list[Row]) -> None:
    dataset = load_dataset(shop.directory, SplitSpec("global_time"))
    cut = sorted(row["timestamp"] for row in rows)
    expected = {
        (row["user_id"], row["item_id"], 0 if row["timestamp"] <= cut[23] else 1 if row["timestamp"] <= cut[26] else 2)
        for row in rows
    }
    assert triples(dataset) == expected


def test_the_fingerprint_knows_contents_and_not_the_path(shop, tmp_path: Path, rows: list[Row]) -> None:
    before = load_dataset(shop.directory).fingerprint
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    assert load_dataset(moved).fingerprint == before
    moved.rename(tmp_path)
    changes = [
        lambda: shop.features(np.ones((6, 3), np.float32)),
        lambda: shop.neighbours(neighbors=np.roll(np.arange(12) % 6, 1).reshape(6, 2)),
        lambda: shop.interactions([row | {"x_label": (row["x_label"] + 1) % 3} for row in rows]),
        lambda: shop.interactions([row | {"user_id": "u" + row["user_id"]} for row in rows]),
        lambda: shop.interactions(rows[1:]),
    ]
    seen = {before}
    for change in changes:
        change()
        seen.add(load_dataset(shop.directory).fingerprint)
    assert len(seen) == 1 + len(changes)


def test_modalities_are_sorted_and_float32(shop) -> None:
    shop.features(np.ones((6, 2), np.float64), "audio_feat.npy")
    dataset = load_dataset(shop.directory)
    assert list(dataset.modalities) == ["audio", "image", "text"]
    image, text = dataset.modalities["image"], dataset.modalities["text"]
    assert image.features is not None
    assert image.features.dtype == np.float32
    assert image.neighbours is None
    assert text.features is None
    assert text.neighbours is not None
    assert text.neighbours.dtype == np.int32
    assert text.present.all()


def test_rows_of_nan_and_of_zeros_lack_the_modality(shop) -> None:
    features = np.ones((6, 3), np.float32)
    features[1], features[4] = np.nan, 0
    shop.features(features)
    image = load_dataset(shop.directory).modalities["image"]
    assert image.present.tolist() == [True, False, True, True, False, True]
    assert image.features is not None
    np.testing.assert_array_equal(image.features, np.ones((6, 3)) * image.present[:, None])


def test_links_from_and_to_items_that_lack_the_modality_are_left_out(shop) -> None:
    features = np.ones((6, 3), np.float32)
    features[2] = 0
    shop.features(features, "text_feat.npy")
    text = load_dataset(shop.directory).modalities["text"]
    assert text.neighbours is not None
    assert text.cosine is not None
    assert text.neighbours.tolist() == [[1, -1], [-1, 3], [-1, -1], [4, 5], [5, 0], [0, 1]]
    np.testing.assert_array_equal(text.cosine, np.where(text.neighbours >= 0, np.float32(0.5), 0))


def test_nothing_known_by_neighbours_alone_is_present_without_one(shop) -> None:
    neighbours = np.array([[1, -1], [0, 3], [-1, -1], [4, 5], [5, 0], [0, 1]])
    shop.neighbours(neighbors=neighbours)
    text = load_dataset(shop.directory).modalities["text"]
    assert text.present.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_items_tables_agree_across_formats(empty_shop, suffix: str) -> None:
    empty_shop.text("interactions.csv", "user,item\na,x\na,y\na,z\n")
    table = pl.DataFrame({"title": ["Ä", None], "itemID": ["y", "x"], "genres": ["p|q", "r"]})
    table = pl.concat([table, pl.DataFrame({"title": ["two\nlines"], "itemID": ["z"], "genres": ["s"]})])
    write = {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[suffix]
    write(empty_shop.directory / f"items.{suffix}")
    assert load_dataset(empty_shop.directory).catalogue == [
        {"item_id": "y", "title": "Ä", "genres": "p|q"},
        {"item_id": "x", "title": None, "genres": "r"},
        {"item_id": "z", "title": "two\nlines", "genres": "s"},
    ]


def test_nested_and_typed_attributes_stay_and_fit_json(empty_shop) -> None:
    empty_shop.text("interactions.csv", "user,item\na,1\na,2\na,3\n")
    lines = [{"item_id": 1, "size": {"cm": [1, 2.5]}, "new": True}, {"item_id": "2"}, {"item_id": 3, "price": 1e999}]
    empty_shop.text("items.jsonl", "\n".join(json.dumps(line) for line in lines).replace("Infinity", "1e999"))
    assert load_dataset(empty_shop.directory).catalogue == [
        {"item_id": "1", "size": {"cm": [1, 2.5]}, "new": True},
        {"item_id": "2"},
        {"item_id": "3", "price": None},
    ]
    (empty_shop.directory / "items.jsonl").unlink()
    moment = np.datetime64("2024-02-03T04:05:06").item()
    pl.DataFrame(
        {"item": [3, 2, 1], "size": [{"cm": [1]}, None, None], "when": [moment] * 3, "price": [1.5, float("nan"), None]}
    ).write_parquet(empty_shop.directory / "items.parquet")
    catalogue = load_dataset(empty_shop.directory).catalogue
    assert json.loads(json.dumps(catalogue, allow_nan=False)) == [
        {"item_id": "3", "size": {"cm": [1]}, "when": "2024-02-03T04:05:06", "price": 1.5},
        {"item_id": "2", "size": None, "when": "2024-02-03T04:05:06", "price": None},
        {"item_id": "1", "size": None, "when": "2024-02-03T04:05:06", "price": None},
    ]


def test_a_csv_column_of_plain_numbers_holds_numbers_and_any_other_text(empty_shop) -> None:
    empty_shop.text("interactions.csv", "user,item\na,1\na,2\na,3\n")
    cells: dict[str, tuple[list[str], list[Any]]] = {
        "item": (["1", "2", "3"], ["1", "2", "3"]),
        "Title": (["1984", "2001", "300"], ["1984", "2001", "300"]),
        "name": (["7", "8", "9"], ["7", "8", "9"]),
        "price": (["55.95", "", "60"], [55.95, None, 60]),
        "weight": (["NaN", "n/a", "60"], [None, None, 60]),
        "material": (["n/a", "NaN", "null"], ["n/a", "NaN", "null"]),
        "quoted": (['"5.50"', '""', '"-3"'], [5.5, None, -3]),
        "zip": (["01234", "90210", "10115"], ["01234", "90210", "10115"]),
        "size": (["36", "37", "M"], ["36", "37", "M"]),
        "code": (["1", "2", "1234567890123456"], ["1", "2", "1234567890123456"]),
        "odd": (["1e3", "inf", "1_0"], ["1e3", "inf", "1_0"]),
        "empty": (["", "", ""], [None, None, None]),
    }
    lines = [cells.keys(), *zip(*(written for written, _ in cells.values()), strict=True)]
    empty_shop.text("items.csv", "\n".join(map(",".join, lines)))
    catalogue = load_dataset(empty_shop.directory).catalogue
    assert catalogue is not None
    assert list(catalogue[0]) == ["item_id", *list(cells)[1:]]
    for name, (_, read) in cells.items():
        found = [record["item_id" if name == "item" else name] for record in catalogue]
        assert (found, list(map(type, found))) == (read, list(map(type, read))), name


def test_tables_without_a_user_column_are_not_taken_for_interactions(shop, rows: list[Row]) -> None:
    shop.text("item_text.csv", "itemID,text\n0,a\n")
    (shop.directory / "interactions.csv").rename(shop.directory / "clicks.csv")
    assert len(load_dataset(shop.directory).users) == len(rows)


def test_brackets_in_names_are_no_pattern(tmp_path: Path, shop) -> None:
    strange = tmp_path.parent / f"{tmp_path.name} [1]*"
    tmp_path.rename(strange)
    assert load_dataset(strange).name == strange.name


def test_the_refusal_names_file_row_and_remedy_and_points_to_the_rest(shop, rows: list[Row]) -> None:
    rows[3]["x_label"] = 7
    shop.interactions(rows)
    with pytest.raises(UserError, match=r"(?s)interactions\.csv: 1 x_labels are not 0.*correct them.*row 5: '7'"):
        load_dataset(shop.directory)


def test_a_split_that_the_file_cannot_give_is_refused_and_reported(empty_shop) -> None:
    empty_shop.text("interactions.csv", "user,item\na,x\na,y\na,z\n")
    for split, code in ((SplitSpec("given"), "missing_label"), (SplitSpec("global_time"), "missing_timestamp")):
        with pytest.raises(UserError, match="needs"):
            load_dataset(empty_shop.directory, split)
        report = validate_directory(empty_shop.directory, split=split)
        assert [finding.code for finding in report.findings if finding.severity == "error"] == [code]


def test_progress_is_told_what_is_read(shop) -> None:
    told: list[str] = []
    load_dataset(shop.directory, progress=told.append)
    assert told == ["items", "image features", "text features", "interactions", "ids", "split", "fingerprint"]
