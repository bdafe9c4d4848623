"""What can be wrong with a dataset directory, each as a way to break a sound one."""

import hashlib
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from shared.item_tower import OUTPUT
from trainer.encoders.features_manifest import FeaturesManifest, write_manifest
from trainer.student import SHARED_PART
from trainer.training import LINEAR_TEACHER
from trainer.views import ID_VIEW

Row = dict[str, Any]
Break = Callable[[Any, list[Row]], object]


def changed(column: str, value: object, *where: int) -> Break:
    return lambda shop, rows: shop.interactions(
        [row | ({column: value} if index in where else {}) for index, row in enumerate(rows)]
    )


def text(name: str, content: str | bytes) -> Break:
    return lambda shop, rows: shop.text(name, content)


def features_named(modality: str) -> Break:
    return lambda shop, rows: shop.features(name=f"{modality}_feat.npy")


def features(change: Callable[[np.ndarray], object], dtype: str = "f4") -> Break:
    def apply(shop: Any, rows: list[Row]) -> None:
        values = np.ones((6, 3), dtype)
        change(values)
        shop.features(values)

    return apply


def neighbours(change: Callable[[np.ndarray, np.ndarray], object]) -> Break:
    def apply(shop: Any, rows: list[Row]) -> None:
        indices = np.array([[(item + 1) % 6, (item + 2) % 6] for item in range(6)])
        cosine = np.full((6, 2), 0.5, np.float32)
        change(indices, cosine)
        shop.neighbours(neighbors=indices, cosine=cosine)

    return apply


def truncated(name: str, keep: float = 0.6) -> Break:
    def apply(shop: Any, rows: list[Row]) -> None:
        content = (shop.directory / name).read_bytes()
        shop.text(name, content[: int(len(content) * keep)])

    return apply


def truncated_parquet(shop: Any, rows: list[Row]) -> None:
    (shop.directory / "interactions.csv").unlink()
    shop.interactions(rows, "interactions.parquet")
    truncated("interactions.parquet")(shop, rows)


def parquet(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    def apply(shop: Any, rows: list[Row]) -> None:
        (shop.directory / "interactions.csv").unlink()
        change(pl.DataFrame(rows)).write_parquet(shop.directory / "interactions.parquet")

    return apply


def removed(shop: Any, rows: list[Row]) -> None:
    (shop.directory / "interactions.csv").unlink()


def objects_in_npz(shop: Any, rows: list[Row]) -> None:
    shop.neighbours(neighbors=np.array([[1, "x"]], dtype=object))


def bomb_in_npz(shop: Any, rows: list[Row]) -> None:
    np.savez_compressed(shop.directory / "text_neighbors.npz", neighbors=np.zeros((6, 12_000_000), np.int8))


def nonsense_in_npz(shop: Any, rows: list[Row]) -> None:
    with zipfile.ZipFile(shop.directory / "text_neighbors.npz", "w") as archive:
        archive.writestr("neighbors.npy", b"no array at all")


def items_with(*ids: str) -> Break:
    def apply(shop: Any, rows: list[Row]) -> None:
        shop.items(list(ids))
        for name in ("image_feat.npy", "text_neighbors.npz"):
            (shop.directory / name).unlink()

    return apply


def items_csv(*lines: str) -> Break:
    return text("items.csv", "\n".join(lines))


def items_parquet(**columns_: list[Any]) -> Break:
    return lambda shop, rows: pl.DataFrame(columns_).write_parquet(shop.directory / "items.parquet")


def items_reordered_since_encoding(shop: Any, rows: list[Row]) -> None:
    """The last two of six items change places after their features were made."""
    sha256 = hashlib.sha256((shop.directory / "image_feat.npy").read_bytes()).hexdigest()
    write_manifest(shop.directory, FeaturesManifest("image", "", {}, (), sha256, tuple(SIX), (None,) * 6, {}))
    shop.items([*SIX[:4], "5", "4"])


def cell(at: Any, value: float) -> Callable[[np.ndarray], object]:
    return lambda values: values.__setitem__(at, value)


NOW = time.time()
SIX = [str(item) for item in range(6)]
FAULTS: dict[str, tuple[str, str, str, int, int | None, Break]] = {
    # name: (severity, code, file, count, row of the first example, how to break a sound directory)
    "no file": ("error", "no_interactions_file", "", 1, None, removed),
    "two files": ("error", "several_interactions_files", "", 2, None, text("other.inter", "userID\titemID\n1\t1\n")),
    "no bytes": ("error", "empty_file", "interactions.csv", 1, None, text("interactions.csv", "")),
    "blank lines only": ("error", "empty_file", "interactions.csv", 1, None, text("interactions.csv", "\n\n")),
    "header only": (
        "error",
        "no_interactions",
        "interactions.csv",
        1,
        None,
        text("interactions.csv", "user_id,item_id\n"),
    ),
    "no user column": (
        "error",
        "missing_column",
        "interactions.csv",
        1,
        None,
        text("interactions.csv", "who,item_id\n1,1\n"),
    ),
    "no header": ("error", "missing_column", "interactions.csv", 2, None, text("interactions.csv", "0,1\n1,1\n")),
    "latin-1": (
        "error",
        "wrong_encoding",
        "interactions.csv",
        1,
        3,
        text("interactions.csv", b"user,item\n1,1\nJos\xe9,2\n"),
    ),
    "utf-16": (
        "error",
        "wrong_encoding",
        "interactions.csv",
        1,
        1,
        text("interactions.csv", "user,item\n1,1\n".encode("utf-16")),
    ),
    "utf-16 unmarked": (
        "error",
        "wrong_encoding",
        "interactions.csv",
        1,
        1,
        text("interactions.csv", "user,item\n".encode("utf-16-le")),
    ),
    "too many fields": (
        "error",
        "malformed_row",
        "interactions.csv",
        1,
        3,
        text("interactions.csv", "user,item\n1,1\n1,2,3\n"),
    ),
    "open quote": (
        "error",
        "malformed_row",
        "interactions.csv",
        1,
        2,
        text("interactions.csv", 'user,item\n1,"1\n1,2\n'),
    ),
    "quote in a field without quotes": (
        "error",
        "malformed_row",
        "items.csv",
        1,
        5,
        text("items.csv", 'item_id,title\n0,"a ""b"" c"\n1,"x\ny"\n2,a "b"\n3,5" disk\n4,3" disk\n5,\n'),
    ),
    "truncated Parquet": ("error", "damaged_file", "interactions.parquet", 1, None, truncated_parquet),
    "CSV named Parquet": ("error", "damaged_file", "items.parquet", 1, None, text("items.parquet", "item_id\n1\n")),
    "two user columns": (
        "warning",
        "ambiguous_columns",
        "interactions.parquet",
        1,
        None,
        parquet(lambda table: table.with_columns(user=pl.lit("x"))),
    ),
    "two columns of one name": (
        "error",
        "duplicate_column",
        "interactions.csv",
        1,
        None,
        text("interactions.csv", "user,item,note,user\n1,1,a,2\n"),
    ),
    "two attributes of one name": (
        "error",
        "duplicate_column",
        "items.csv",
        1,
        None,
        items_csv("item_id,price,price", *(f"{item},1,2" for item in SIX)),
    ),
    "price in words": (
        "warning",
        "mixed_column",
        "items.csv",
        1,
        4,
        items_csv("item_id,price", "0,1", "1,2.50", "2,on request", "3,4", "4,5", "5,6"),
    ),
    "infinite price": (
        "warning",
        "mixed_column",
        "items.csv",
        1,
        7,
        items_csv("item_id,price", "0,1", "1,2.50", "2,3", "3,4", "4,5", "5,inf"),
    ),
    "prices as they are printed": (
        "warning",
        "mixed_column",
        "items.csv",
        3,
        2,
        items_csv("item_id,price", '0,"1,299.00"', "1,2.50", "2,€9", "3,4", "4,", '5,"12,5 %"'),
    ),
    "spaces around a user id": (
        "warning",
        "spaces_around_ids",
        "interactions.csv",
        5,
        2,
        changed("user_id", " 0", *range(5)),
    ),
    "times under another name": (
        "warning",
        "unread_times",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: shop.interactions([row | {"when": row.pop("timestamp")} for row in rows]),
    ),
    "float ids": (
        "error",
        "bad_id_type",
        "interactions.parquet",
        1,
        None,
        parquet(lambda table: table.with_columns(pl.col("item_id").cast(pl.Float64))),
    ),
    "null id in Parquet": (
        "error",
        "empty_id",
        "interactions.parquet",
        1,
        4,
        parquet(lambda table: table.with_columns(user_id=pl.when(pl.int_range(pl.len()) != 4).then("user_id"))),
    ),
    "empty id": ("error", "empty_id", "interactions.csv", 2, 4, changed("item_id", None, 2, 7)),
    "blank id": ("error", "empty_id", "interactions.csv", 1, 4, changed("user_id", "  ", 2)),
    "no timestamp": ("error", "bad_timestamp", "interactions.csv", 1, 11, changed("timestamp", None, 9)),
    "timestamp in words": ("error", "bad_timestamp", "interactions.csv", 1, 11, changed("timestamp", "yesterday", 9)),
    "infinite timestamp": ("error", "bad_timestamp", "interactions.csv", 1, 2, changed("timestamp", "inf", 0)),
    "negative timestamp": ("error", "negative_timestamp", "interactions.csv", 2, 2, changed("timestamp", -5, 0, 1)),
    "timestamp of 1970": ("warning", "early_timestamp", "interactions.csv", 1, 2, changed("timestamp", 77, 0)),
    "timestamp of 1989": (
        "warning",
        "early_timestamp",
        "interactions.csv",
        1,
        2,
        changed("timestamp", "1989-12-31", 0),
    ),
    "timestamp in two days": (
        "warning",
        "future_timestamp",
        "interactions.csv",
        1,
        2,
        changed("timestamp", int(NOW) + 2 * 86_400, 0),
    ),
    "weight in words": ("error", "bad_weight", "interactions.csv", 1, 2, changed("weight", "much", 0)),
    "weight NaN": ("error", "bad_weight", "interactions.csv", 1, 2, changed("weight", float("nan"), 0)),
    "negative weight": ("error", "bad_weight", "interactions.csv", 1, 2, changed("weight", -1, 0)),
    "no weight": ("error", "bad_weight", "interactions.csv", 1, 2, changed("weight", None, 0)),
    "zero weight": ("warning", "zero_weight", "interactions.csv", 1, 2, changed("weight", 0, 0)),
    "label 3": ("error", "bad_label", "interactions.csv", 1, 3, changed("x_label", 3, 1)),
    "label 0.5": ("error", "bad_label", "interactions.csv", 1, 3, changed("x_label", 0.5, 1)),
    "no label": ("error", "bad_label", "interactions.csv", 1, 3, changed("x_label", None, 1)),
    "repeated row": (
        "warning",
        "duplicate_interactions",
        "interactions.csv",
        2,
        32,
        lambda shop, rows: shop.interactions(rows + rows[:2]),
    ),
    "no training": (
        "error",
        "no_training",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: shop.interactions([row | {"x_label": 1} for row in rows]),
    ),
    "no validation": (
        "error",
        "no_validation",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: shop.interactions([row | {"x_label": row["x_label"] & 2} for row in rows]),
    ),
    "no test": (
        "warning",
        "no_test",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: shop.interactions([row | {"x_label": min(row["x_label"], 1)} for row in rows]),
    ),
    "user without training": (
        "warning",
        "users_without_training",
        "interactions.csv",
        1,
        None,
        changed("x_label", 2, 0, 1, 2),
    ),
    "rare user": (
        "warning",
        "users_below_core",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: shop.interactions([*rows, rows[0] | {"user_id": "new"}]),
    ),
    "rare item": (
        "warning",
        "items_below_core",
        "interactions.csv",
        1,
        None,
        lambda shop, rows: (
            shop.interactions([*rows, rows[0] | {"item_id": "6"}]),
            shop.features(np.ones((7, 2), "f4")),
            (shop.directory / "text_neighbors.npz").unlink(),
        ),
    ),
    "item beyond the features": (
        "error",
        "ids_without_features",
        "interactions.csv",
        1,
        2,
        lambda shop, rows: shop.interactions([rows[0] | {"item_id": "6"}, *rows]),
    ),
    "item ids in words": (
        "error",
        "ids_without_features",
        "interactions.csv",
        1,
        2,
        lambda shop, rows: shop.interactions([rows[0] | {"item_id": "hat"}, *rows]),
    ),
    "padded item ids": (
        "error",
        "ids_without_features",
        "interactions.csv",
        1,
        2,
        lambda shop, rows: shop.interactions([rows[0] | {"item_id": "03"}, *rows]),
    ),
    "features of nobody": (
        "warning",
        "features_without_ids",
        "image_feat.npy",
        1,
        6,
        lambda shop, rows: (shop.features(np.ones((7, 2), "f4")), (shop.directory / "text_neighbors.npz").unlink()),
    ),
    "item not in the table": (
        "error",
        "unknown_ids",
        "interactions.csv",
        1,
        32,
        lambda shop, rows: (shop.items(), shop.interactions([*rows, rows[0] | {"item_id": "hat"}])),
    ),
    "two items tables": (
        "error",
        "several_items_tables",
        "",
        2,
        None,
        lambda shop, rows: (shop.items(), shop.text("items.jsonl", "{}")),
    ),
    "empty items table": ("error", "empty_file", "items.csv", 1, None, text("items.csv", "")),
    "items table with a header only": ("error", "no_items", "items.csv", 1, None, text("items.csv", "item_id,title\n")),
    "items table without ids": ("error", "missing_column", "items.csv", 1, None, text("items.csv", "title\nhat\n")),
    "items table not UTF-8": (
        "error",
        "wrong_encoding",
        "items.csv",
        1,
        2,
        text("items.csv", b"item_id,title\n0,\xff\n"),
    ),
    "items table with bytes": (
        "error",
        "unsupported_type",
        "items.parquet",
        1,
        None,
        items_parquet(item_id=SIX, image=[b"x"] * 6),
    ),
    **{
        f"items table with bytes in a {kind}": (
            "error",
            "unsupported_type",
            "items.parquet",
            1,
            None,
            items_parquet(item_id=SIX, image=[value] * 6),
        )
        for kind, value in {
            "struct": {"bytes": b"x", "path": "0.png"},
            "list": [b"x"],
            "list of structs": [{"all": [b"x"]}],
        }.items()
    },
    **{
        f"items table named {name}": ("error", "misnamed_items_table", name, 1, None, text(name, "item_id\n1\n"))
        for name in ("Items.csv", "items.tsv", "items.csv.gz", "items.json", "ITEMS.xlsx")
    },
    "items table beside the one that is read": (
        "warning",
        "misnamed_items_table",
        "items.ndjson",
        1,
        None,
        lambda shop, rows: (shop.items(), shop.text("items.ndjson", "")),
    ),
    "item ids as floats": (
        "error",
        "bad_id_type",
        "items.parquet",
        6,
        0,
        items_parquet(item_id=[float(item) for item in range(6)]),
    ),
    "item twice in the table": ("error", "duplicate_item_ids", "items.csv", 1, 8, items_with(*SIX, "2")),
    "item without id": ("error", "empty_id", "items.csv", 1, 8, items_with(*SIX, " ")),
    "broken line": (
        "error",
        "malformed_row",
        "items.jsonl",
        2,
        7,
        text("items.jsonl", "\n".join([*(f'{{"item_id": {item}}}' for item in SIX), "{", '"hat"'])),
    ),
    "lone surrogate": (
        "error",
        "malformed_row",
        "items.jsonl",
        1,
        7,
        text("items.jsonl", "\n".join([*(f'{{"item_id": {item}}}' for item in SIX), '{"item_id": "\\ud800"}'])),
    ),
    "bottomless nesting": (
        "error",
        "malformed_row",
        "items.jsonl",
        1,
        7,
        text("items.jsonl", "\n".join([*(f'{{"item_id": {item}}}' for item in SIX), "[" * 200_000])),
    ),
    "fewer features than items": (
        "error",
        "wrong_row_count",
        "image_feat.npy",
        1,
        None,
        lambda shop, rows: (shop.items(), shop.features(np.ones((5, 2), "f4"))),
    ),
    "more neighbours than features": (
        "error",
        "wrong_row_count",
        "text_neighbors.npz",
        1,
        None,
        lambda shop, rows: (shop.features(name="audio_feat.npy"), shop.neighbours(neighbors=np.arange(7)[:, None])),
    ),
    "items table in another order": (
        "error",
        "features_of_other_items",
        "image_feat.npy",
        2,
        4,
        items_reordered_since_encoding,
    ),
    "NaN in places": ("error", "partly_nan", "image_feat.npy", 1, 2, features(cell((2, 1), np.nan))),
    "infinite feature": ("error", "infinite_features", "image_feat.npy", 1, 2, features(cell((2, 1), -np.inf))),
    "too large for float32": (
        "error",
        "infinite_features",
        "image_feat.npy",
        1,
        2,
        features(cell((2, 1), 1e200), "f8"),
    ),
    "all NaN": ("warning", "nan_rows", "image_feat.npy", 2, 0, features(cell(slice(2), np.nan))),
    "zero norm": ("warning", "zero_rows", "image_feat.npy", 1, 5, features(cell(5, 0.0))),
    "nothing there": ("error", "empty_modality", "image_feat.npy", 1, None, features(cell(slice(None), 0.0))),
    "partial coverage": (
        "warning",
        "partial_coverage",
        "text_neighbors.npz",
        1,
        None,
        neighbours(lambda indices, cosine: indices.__setitem__((indices == 3) | (np.arange(6)[:, None] == 3), -1)),
    ),
    "vector instead of matrix": (
        "error",
        "wrong_ndim",
        "image_feat.npy",
        1,
        None,
        lambda shop, rows: shop.features(np.ones(6, "f4")),
    ),
    "scalar": ("error", "wrong_ndim", "image_feat.npy", 1, None, lambda shop, rows: shop.features(np.float32(1))),
    "no columns": (
        "error",
        "wrong_shape",
        "image_feat.npy",
        1,
        None,
        lambda shop, rows: shop.features(np.ones((6, 0), "f4")),
    ),
    "integers": (
        "error",
        "wrong_dtype",
        "image_feat.npy",
        1,
        None,
        lambda shop, rows: shop.features(np.ones((6, 2), "i4")),
    ),
    "objects": (
        "error",
        "pickle_refused",
        "image_feat.npy",
        1,
        None,
        lambda shop, rows: shop.features(np.array([[None]] * 6)),
    ),
    "bare pickle": ("error", "pickle_refused", "image_feat.npy", 1, None, text("image_feat.npy", b"\x80\x04N.")),
    "truncated npy": ("error", "damaged_file", "image_feat.npy", 1, None, truncated("image_feat.npy", 0.9)),
    "truncated npy header": ("error", "damaged_file", "image_feat.npy", 1, None, truncated("image_feat.npy", 0.2)),
    "empty npy": ("error", "empty_file", "image_feat.npy", 1, None, text("image_feat.npy", "")),
    "truncated npz": ("error", "damaged_file", "text_neighbors.npz", 1, None, truncated("text_neighbors.npz")),
    "objects in npz": ("error", "pickle_refused", "text_neighbors.npz", 1, None, objects_in_npz),
    "bomb in npz": ("error", "zip_bomb", "text_neighbors.npz", 1, None, bomb_in_npz),
    "no array in npz": ("error", "damaged_file", "text_neighbors.npz", 1, None, nonsense_in_npz),
    "neighbors misnamed": (
        "error",
        "missing_array",
        "text_neighbors.npz",
        1,
        None,
        lambda shop, rows: shop.neighbours(neighbours=np.zeros((6, 1), int)),
    ),
    "cosine of another shape": (
        "error",
        "wrong_shape",
        "text_neighbors.npz",
        1,
        None,
        lambda shop, rows: shop.neighbours(neighbors=np.arange(6)[:, None], cosine=np.ones((6, 2), "f4")),
    ),
    "neighbour out of range": (
        "error",
        "neighbour_out_of_range",
        "text_neighbors.npz",
        1,
        3,
        neighbours(lambda indices, cosine: indices.__setitem__((3, 1), 6)),
    ),
    "neighbour -2": (
        "error",
        "neighbour_out_of_range",
        "text_neighbors.npz",
        1,
        3,
        neighbours(lambda indices, cosine: indices.__setitem__((3, 1), -2)),
    ),
    "neighbour twice": (
        "error",
        "duplicate_neighbours",
        "text_neighbors.npz",
        1,
        3,
        neighbours(lambda indices, cosine: indices.__setitem__(3, 1)),
    ),
    "cosine above one": (
        "error",
        "bad_cosine",
        "text_neighbors.npz",
        1,
        3,
        neighbours(lambda indices, cosine: cosine.__setitem__((3, 1), 1.1)),
    ),
    "cosine NaN": (
        "error",
        "bad_cosine",
        "text_neighbors.npz",
        1,
        3,
        neighbours(lambda indices, cosine: cosine.__setitem__((3, 1), np.nan)),
    ),
    "neighbours of absent items": (
        "warning",
        "neighbours_of_absent",
        "text_neighbors.npz",
        2,
        1,
        neighbours(lambda indices, cosine: indices.__setitem__(3, -1)),
    ),
    **{
        f"modality named {name}": (
            "error",
            "bad_modality_name",
            f"{name}_feat.npy",
            1,
            None,
            features_named(name),
        )
        for name in (ID_VIEW, LINEAR_TEACHER, SHARED_PART, OUTPUT)
    },
    "modality with a dot": (
        "error",
        "bad_modality_name",
        "a.b_feat.npy",
        1,
        None,
        lambda shop, rows: shop.features(name="a.b_feat.npy"),
    ),
    "misspelt file": (
        "warning",
        "unused_file",
        "image_feats.npy",
        1,
        None,
        lambda shop, rows: shop.features(name="image_feats.npy"),
    ),
}
