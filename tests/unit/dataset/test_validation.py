"""Each finding from a directory with exactly that fault; and validation agrees with loading on all of them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from shared.errors import UserError
from tests.unit.dataset.faults import FAULTS, Row
from trainer.dataset import Finding, load_dataset, render_report, validate_directory

LOADABLE_ERRORS = {"no_training", "no_validation"}
"""Faults of what was loaded, not of loading it."""

COMPANIONS = {
    "nan_rows": {"partial_coverage"},
    "zero_rows": {"partial_coverage"},
    "neighbours_of_absent": {"partial_coverage"},
    "partly_nan": {"partial_coverage"},
    "infinite_features": {"partial_coverage"},
    "no_training": {"no_validation", "no_test", "users_without_training"},
}
"""Warnings that the same fault cannot but bring."""


def test_a_sound_directory_has_no_findings(shop) -> None:
    report = validate_directory(shop.directory)
    assert report.findings == ()
    assert report.ok


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_named_and_placed_and_nothing_else_is(fault: str, shop, rows: list[Row]) -> None:
    severity, code, file, count, row, break_ = FAULTS[fault]
    break_(shop, rows)
    report = validate_directory(shop.directory)
    found = {finding.code: finding for finding in report.findings}
    assert code in found
    finding = found[code]
    assert (finding.severity, finding.count) == (severity, count)
    assert finding.file == (file or shop.directory.name)
    if row is not None:
        assert finding.examples[0].row == row
    assert ":" in finding.message or "," in finding.message, "a message says what is wrong and how to mend it"
    errors = {finding.code for finding in report.findings if finding.severity == "error"}
    assert errors == ({code} if severity == "error" else set())
    if severity == "warning":
        assert set(found) - COMPANIONS.get(code, set()) == {code}


@pytest.mark.parametrize("fault", FAULTS)
def test_loading_refuses_exactly_what_validation_calls_an_error(fault: str, shop, rows: list[Row]) -> None:
    severity, code, file, _, _, break_ = FAULTS[fault]
    break_(shop, rows)
    if severity == "warning" or code in LOADABLE_ERRORS:
        load_dataset(shop.directory)
    else:
        with pytest.raises(UserError, match=(file or shop.directory.name).replace(".", r"\.")):
            load_dataset(shop.directory)


def test_a_pair_in_two_splits_is_leakage(shop, rows: list[Row]) -> None:
    shop.interactions([*rows, rows[0] | {"x_label": 2}])
    report = validate_directory(shop.directory)
    finding = report.findings[0]
    assert (finding.code, finding.count, report.ok) == ("leakage", 1, False)
    assert "user '0', item '0'" in str(finding)
    with pytest.raises(UserError, match="two splits"):
        load_dataset(shop.directory)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Items.CSV", "name it items.csv"),
        ("items.tsv", "save it with commas, as items.csv"),
        ("items.jsonl.gz", "unpack it into items.jsonl"),
        ("items.json", "write one object a line, as items.jsonl"),
        ("items.pq", "name it items.parquet"),
    ],
)
def test_what_may_be_meant_as_the_items_table_is_told_how_to_be_named(shop, name: str, advice: str) -> None:
    (shop.directory / "image_feat.npy").unlink()
    (shop.directory / "text_neighbors.npz").unlink()
    shop.text(name, "item_id\n1\n")
    (finding,) = validate_directory(shop.directory).findings
    assert (finding.severity, finding.file) == ("warning", name), "without features it is nobody's"
    assert advice in finding.message


def test_the_type_to_save_features_in_is_one_that_there_is(shop) -> None:
    shop.features(np.ones((6, 2), "i4"))
    (finding,) = validate_directory(shop.directory).findings
    assert finding.message == "is int32: save it as float32"


def test_columns_that_are_read_and_that_are_not_are_named(shop, rows: list[Row]) -> None:
    shop.interactions(
        [{"userID": row["user_id"], "item": row["item_id"], "rating": row["weight"], "page": "a"} for row in rows]
    )
    report = validate_directory(shop.directory)
    summary = report.summary
    assert summary is not None
    assert summary.columns == {"user": "userID", "item": "item", "weight": "rating"}
    assert (summary.ignored_columns, summary.different_weights) == (("page",), 5)
    out = io.StringIO()
    render_report(report, Console(file=out, width=160))
    assert "userID (user), item, rating (weight)" in out.getvalue()
    assert "used with draw_by_weight=true alone" in out.getvalue()


def test_a_column_is_called_mixed_only_where_most_of_it_are_numbers_and_no_code_is_among_them(shop) -> None:
    columns = {
        "zip": "01234 90210 10115 20095 50667 80331",
        "size": "36 37 38 39 M L",
        "day": "24.11.2026 1.2.2026 3.4.2026 5.6.2026 7.8.2026 9.9.2026",
        "version": "1.2.3 1.2.4 1.2.5 1.2.6 1.2.7 2.0.0",
    }
    lines = zip("012345", *(cells.split() for cells in columns.values()), strict=True)
    shop.text("items.csv", "\n".join([",".join(["item_id", *columns]), *map(",".join, lines)]))
    assert validate_directory(shop.directory).findings == ()


def test_ids_that_spaces_alone_make_others_are_counted(shop, rows: list[Row]) -> None:
    shop.interactions([*rows, rows[0] | {"user_id": " 0"}, rows[1] | {"user_id": "9 "}])
    (finding,) = [each for each in validate_directory(shop.directory).findings if each.code == "spaces_around_ids"]
    assert (finding.count, [example.row for example in finding.examples]) == (2, [32, 33])
    assert "without, 1 would be the same as another" in finding.message


def test_interactions_in_a_file_of_such_a_name_are_what_is_read(shop, rows: list[Row]) -> None:
    (shop.directory / "interactions.csv").unlink()
    shop.interactions(rows, "Items.csv")
    assert validate_directory(shop.directory).findings == ()


def test_all_faults_of_a_directory_are_reported_together(shop, rows: list[Row]) -> None:
    rows[0]["x_label"], rows[1]["timestamp"], rows[2]["weight"] = 9, -1, -1
    shop.interactions(rows)
    shop.text("image_feat.npy", b"no array")
    shop.neighbours(neighbors=np.full((6, 1), 99))
    report = validate_directory(shop.directory)
    errors = {finding.code for finding in report.findings if finding.severity == "error"}
    assert errors == {"bad_label", "negative_timestamp", "bad_weight", "damaged_file", "neighbour_out_of_range"}
    with pytest.raises(UserError, match="and 2 more"):
        load_dataset(shop.directory)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_directory_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("user,item\n")
    report = validate_directory(path)
    assert [finding.code for finding in report.findings] == ["not_a_directory"]
    assert report.summary is None
    assert not report.ok
    with pytest.raises(UserError, match=kind):
        load_dataset(path)


def test_the_wrong_byte_and_line_are_named_even_far_into_a_file(empty_shop) -> None:
    lines = b"user,item\n" + b"u,\xc3\xa9\n" * 4_000_000
    empty_shop.text("interactions.csv", lines + b"\xc3(,2\n")
    finding = validate_directory(empty_shop.directory).findings[0]
    assert f"byte {len(lines)} (line 4000002)" in finding.message


@pytest.mark.parametrize("ending", [".csv", ".inter"])
def test_a_quote_that_nobody_closes_is_named_with_its_row_and_text(empty_shop, ending: str) -> None:
    separator = "," if ending == ".csv" else "\t"
    rows = ["user,item", '"a ""b""",1', '"b\n",2', '"c",3', 'd,5" disk', 'e,3" disk']
    empty_shop.text(f"interactions{ending}", "\n".join(rows).replace(",", separator))
    finding = validate_directory(empty_shop.directory).findings[0]
    assert finding.code == "malformed_row"
    assert "row 5 has a double quote in a field without quotes, '5\" disk': put the field in" in finding.message
    assert str(finding).endswith("""[row 5: '5" disk']""")


def test_figures_are_those_of_the_data(shop, rows: list[Row]) -> None:
    features = np.ones((8, 3), np.float32)
    features[:2] = 0
    shop.features(features)
    (shop.directory / "text_neighbors.npz").unlink()
    shop.interactions([*rows, rows[0] | {"user_id": "rare"}, rows[1] | {"user_id": "rare", "item_id": "6"}])
    summary = validate_directory(shop.directory).summary
    assert summary is not None
    assert (summary.users, summary.items, summary.interactions, summary.cold_items) == (7, 8, 32, 1)
    assert summary.density == pytest.approx(32 / 56)
    assert summary.split_sizes == {"train": 20, "validation": 6, "test": 6}
    assert summary.coverage == {"image": 75.0}
    assert (summary.users_below_core, summary.items_below_core) == (1, 1)
    assert (summary.core_users, summary.core_items, summary.core_interactions) == (6, 6, 30)


def test_the_core_shrinks_until_nobody_is_below(shop, rows: list[Row]) -> None:
    # Without one interaction every user and item falls below 5 in turn.
    shop.interactions(rows[1:])
    summary = validate_directory(shop.directory).summary
    assert summary is not None
    assert (summary.users_below_core, summary.items_below_core) == (1, 1)
    assert (summary.core_users, summary.core_items, summary.core_interactions) == (0, 0, 0)
    lower = validate_directory(shop.directory, core=4).summary
    assert lower is not None
    assert (lower.core_users, lower.core_interactions) == (6, 29)


def test_the_report_is_json_and_a_readable_table(shop, rows: list[Row]) -> None:
    rows[0]["item_id"] = "[bold]" + "x" * 5000
    shop.interactions(rows)
    report = validate_directory(shop.directory)
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["ok"] is False
    assert plain["findings"][0]["code"] == "ids_without_features"
    assert plain["findings"][0]["examples"][0]["row"] == 2
    assert len(plain["findings"][0]["examples"][0]["value"]) <= 80
    assert plain["summary"]["split_sizes"]["train"] == 17
    out = io.StringIO()
    render_report(report, Console(file=out, width=160))
    shown = out.getvalue()
    assert "ids_without_features" in shown
    assert "[bold]xxx" in shown
    assert "cannot be trained on" in shown
    assert "17 / 6 / 6" in shown


def test_a_finding_reads_as_one_line_with_its_places() -> None:
    from trainer.dataset import Example, Severity

    finding = Finding(
        Severity.ERROR, "bad_label", "a.csv", "wrong: mend it", 2, (Example(3, "'7'"), Example(None, "x"))
    )
    assert str(finding) == "a.csv: wrong: mend it [row 3: '7'; x]"


def test_no_byte_flip_or_cut_of_a_features_file_ends_in_a_traceback(shop) -> None:
    generator = np.random.default_rng(0)
    for name in ("image_feat.npy", "text_neighbors.npz"):
        sound = (shop.directory / name).read_bytes()
        for _ in range(40):
            content = bytearray(sound[: generator.integers(len(sound) // 2, len(sound) + 1)])
            for position in generator.integers(0, len(content), 2):
                content[position] = generator.integers(256)
            shop.text(name, bytes(content))
            report = validate_directory(shop.directory)
            try:
                load_dataset(shop.directory)
                assert report.ok
            except UserError:
                assert not report.ok
        shop.text(name, sound)
