import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from shared.encoders import EncoderFolder
from shared.encoders.folder import read_folder
from shared.errors import UsageError, UserError
from trainer.cli.app import app
from trainer.cli.encoders import encode_catalogue
from trainer.dataset import load_dataset
from trainer.encoders import encode as encoding
from trainer.encoders.encode import Outcome, encode_modality
from trainer.encoders.features_manifest import encoder_path, read_manifest
from trainer.encoders.linked import link_dataset
from trainer.encoders.sources import PictureSource, TextSource, read_items
from trainer.encoders.store import add_image_network, add_text_network

from .conftest import PLAIN, WORDS, colour_network, picture, saved, word_network, word_tokenizer

Catalogue = Callable[..., Path]


def encode_words(folder: Path, encoder: EncoderFolder, out: Path | None = None, **options: object) -> Outcome:
    items = read_items(folder)
    source = TextSource(items, items.columns(["title", "description"]))
    return encode_modality("text", source, items.ids, encoder, out or folder, threads=2, **options)


def encode_pictures(folder: Path, encoder: EncoderFolder, out: Path | None = None) -> Outcome:
    items = read_items(folder)
    return encode_modality("image", PictureSource(items, ["image"]), items.ids, encoder, out or folder, threads=2)


def features(folder: Path, modality: str = "text") -> np.ndarray:
    return np.load(folder / f"{modality}_feat.npy")


def shares(*words: str) -> list[float]:
    return [words.count(word) / len(words) for word in WORDS]


def test_a_row_is_the_vector_of_title_and_description(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue(
        {"item_id": "a", "title": "Red mug", "description": "<b>blue</b> lamp"},
        {"item_id": "b", "title": "", "description": " "},
        {"item_id": "c", "title": "mug mug mug red", "description": ""},
        {"item_id": "d", "title": "!?", "description": ""},
    )
    outcome = encode_words(shop, words)
    expected = [
        shares("red", "mug", "[UNK]", "blue", "lamp"),  # the full stop between the two is no known word
        [np.nan] * 5,
        shares("mug", "mug", "mug", "red"),
        [np.nan] * 5,
    ]
    assert features(shop).dtype == np.float32
    np.testing.assert_allclose(features(shop), expected)
    assert (outcome.encoded, outcome.reused, outcome.missing, outcome.faults) == (2, 0, 2, {})


def test_texts_of_all_lengths_come_out_in_their_own_rows(catalogue: Catalogue, words: EncoderFolder) -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS[1:], generator.integers(1, 300))) for _ in range(700)]
    shop = catalogue(*({"item_id": str(row), "title": text} for row, text in enumerate(texts)))
    assert encode_words(shop, words).encoded == 700
    cut = [shares(*text.split()[:256]) for text in texts]
    np.testing.assert_allclose(features(shop), cut, atol=1e-6)


def test_only_what_is_new_or_has_changed_is_encoded(catalogue: Catalogue, words: EncoderFolder) -> None:
    rows = [{"item_id": str(row), "title": f"{'red ' * row}mug"} for row in range(6)]
    shop = catalogue(*rows)
    assert encode_words(shop, words).encoded == 6
    rows[2]["title"] = "blue lamp"
    rows = [{"item_id": "new", "title": "lamp"}, *reversed(rows)]
    catalogue(*rows)
    outcome = encode_words(shop, words)
    assert (outcome.encoded, outcome.reused) == (2, 5)
    np.testing.assert_allclose(features(shop), [shares(*row["title"].split()) for row in rows])
    assert encode_words(shop, words).encoded == 0
    fresh = catalogue(*rows, name="fresh")
    encode_words(fresh, words)
    for name in ("text_feat.npy", "text_feat.json"):
        assert (shop / name).read_bytes() == (fresh / name).read_bytes()


def test_another_encoder_encodes_anew_and_damaged_features_only_if_told_to(
    catalogue: Catalogue, words: EncoderFolder, store: Path, tmp_path: Path
) -> None:
    shop = catalogue({"item_id": "a", "title": "red mug"}, {"item_id": "b", "title": "lamp"})
    encode_words(shop, words)
    double = word_network(tmp_path / "double.onnx", scale=2.0)
    other = add_text_network(store, "double", double, word_tokenizer(tmp_path / "t.json"), {"normalise": False})
    assert encode_words(shop, other).encoded == 2
    np.testing.assert_allclose(features(shop), [np.multiply(2, shares("red", "mug")), np.multiply(2, shares("lamp"))])
    content = bytearray((shop / "text_feat.npy").read_bytes())
    content[-1] ^= 1
    (shop / "text_feat.npy").write_bytes(content)
    assert read_manifest(shop, "text") is None
    with pytest.raises(UserError, match="or was changed since"):
        encode_words(shop, other)
    assert encode_words(shop, other, overwrite=True).encoded == 2


def test_the_manifest_says_what_was_encoded_and_with_what(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue({"item_id": "a", "title": "red mug"}, {"item_id": "b", "title": ""})
    encode_words(shop, words)
    document = json.loads((shop / "text_feat.json").read_text())
    assert document["encoder"]["digest"] == words.digest
    assert document["encoder"]["revision"].startswith("sha256:")
    assert document["fields"] == ["title"]
    assert document["items"]["item_id"] == ["a", "b"]
    assert document["items"]["sha256"] == [hashlib.sha256(b"red mug").hexdigest(), None]
    assert document["features_sha256"] == hashlib.sha256((shop / "text_feat.npy").read_bytes()).hexdigest()


def test_ugly_files_are_named_and_masked_and_the_rest_is_encoded(catalogue: Catalogue, colours: EncoderFolder) -> None:
    rows = [{"item_id": f"item-{number}", "image": f"images/{number}.jpg"} for number in range(5)]
    rows += [
        {"item_id": "nothing", "image": ""},
        {"item_id": "above", "image": "../secret.png"},
        {"item_id": "absolute", "image": "/etc/passwd"},
        {"item_id": "inner", "image": "images/../../secret.png"},
        {"item_id": "linked", "image": "images/link.png"},
        {"item_id": "elsewhere", "image": "https://example.com/mug.jpg"},
    ]
    shop = catalogue(*rows)
    (shop / "images" / "0.jpg").write_bytes(saved(picture("red"), "JPEG", quality=95))
    (shop / "images" / "1.jpg").write_bytes(saved(picture("red"), "JPEG")[:200])
    (shop / "images" / "2.jpg").write_bytes(saved(picture((0, 0, 0, 0), mode="CMYK"), "JPEG"))
    (shop / "images" / "4.jpg").write_bytes(saved(picture("blue"), "WEBP", lossless=True))
    (shop.parent / "secret.png").write_bytes(saved(picture("green"), "PNG"))
    (shop / "images" / "link.png").symlink_to(shop.parent / "secret.png")
    outcome = encode_pictures(shop, colours)
    assert (outcome.encoded, outcome.missing) == (2, 9)
    found = features(shop, "image")
    np.testing.assert_allclose(found[0], [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(found[4], [0, 0, 1])
    assert np.isnan(np.delete(found, [0, 4], axis=0)).all()
    reasons = {"item-1": "damaged", "item-2": "CMYK", "item-3": "missing"}
    reasons["elsewhere"] = "is an address, and pictures are not fetched"
    reasons |= dict.fromkeys(("above", "absolute", "inner", "linked"), "leads out of the catalogue's folder")
    assert outcome.faults.keys() == reasons.keys()
    for item, reason in reasons.items():
        assert reason in outcome.faults[item]
    assert json.loads((shop / "image_feat.json").read_text())["faults"] == outcome.faults


def test_a_mended_file_is_encoded_the_next_time(catalogue: Catalogue, colours: EncoderFolder) -> None:
    shop = catalogue({"item_id": "a", "image": "images/a.png"}, {"item_id": "b", "image": "images/b.png"})
    (shop / "images" / "a.png").write_bytes(saved(picture("red"), "PNG"))
    (shop / "images" / "b.png").write_bytes(b"")
    assert encode_pictures(shop, colours).faults.keys() == {"b"}
    (shop / "images" / "b.png").write_bytes(saved(picture("blue"), "PNG"))
    outcome = encode_pictures(shop, colours)
    assert (outcome.encoded, outcome.reused, outcome.faults) == (1, 1, {})
    np.testing.assert_allclose(features(shop, "image"), [[1, 0, 0], [0, 0, 1]])


def test_a_network_that_takes_one_picture_at_a_time_gets_one(catalogue: Catalogue, store: Path, tmp_path: Path) -> None:
    single = add_image_network(store, "single", colour_network(tmp_path / "single.onnx", batch=1), PLAIN)
    shop = catalogue(*({"item_id": str(row), "image": f"images/{row}.png"} for row in range(3)))
    for row, colour in enumerate(("red", "lime", "blue")):
        (shop / "images" / f"{row}.png").write_bytes(saved(picture(colour), "PNG"))
    encode_pictures(shop, single)
    np.testing.assert_allclose(features(shop, "image"), np.eye(3))


ENCODE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from trainer.encoders.encode import encode_modality
from trainer.encoders.sources import TextSource, read_items
from trainer.encoders.store import find_encoder

def die(done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

items = read_items(Path(sys.argv[1]))
encoder = find_encoder(Path(sys.argv[2]), "text", "words")
encode_modality("text", TextSource(items, ["title"]), items.ids, encoder, items.directory, threads=1, progress=die)
"""


def test_a_killed_run_goes_on_where_it_was(catalogue: Catalogue, words: EncoderFolder, store: Path) -> None:
    rows = [{"item_id": str(row), "title": " ".join(["red"] * (row % 7) + ["mug"] * (row + 1))} for row in range(200)]
    shop = catalogue(*rows)
    killed = subprocess.run([sys.executable, "-c", ENCODE_AND_DIE, shop, store, "100"], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (shop / "text_feat.npy").exists()
    (journal,) = shop.glob(".text_feat.*.journal")
    with journal.open("ab") as file:
        file.write(b"a torn record")
    outcome = encode_words(shop, words)
    assert outcome.reused >= 96
    assert outcome.encoded == 200 - outcome.reused
    whole = catalogue(*rows, name="whole")
    encode_words(whole, words)
    np.testing.assert_allclose(features(shop), features(whole), atol=1e-6)
    assert not [path.name for path in shop.iterdir() if path.name.startswith(".text")]


def test_a_journal_with_a_flipped_bit_is_not_believed(
    catalogue: Catalogue, words: EncoderFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"item_id": str(row), "title": "mug " * (row + 1) + "red"} for row in range(40)]
    shop = catalogue(*rows)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "write_folder", refuse)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); .* make room"):
            encode_words(shop, words)
    (journal,) = shop.glob(".text_feat.*.journal")
    content = bytearray(journal.read_bytes())
    content[10 * len(content) // 40 + 40] ^= 1
    journal.write_bytes(content)
    outcome = encode_words(shop, words)
    assert (outcome.reused, outcome.encoded) == (10, 30)
    np.testing.assert_allclose(features(shop), [shares(*row["title"].split()) for row in rows], atol=1e-6)


def test_room_for_all_rows_is_taken_before_the_first_is_made(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue(*({"item_id": str(row), "title": "red mug"} for row in range(3000)))
    unfinished = shop / ".text_feat.unfinished"
    taken = []

    def look(done: int, total: int) -> None:
        if not done:
            state = unfinished.stat()
            taken.append((state.st_blocks * 512, state.st_size))

    encode_words(shop, words, progress=look)
    room, size = taken[0]
    assert room >= size > 3000 * 5 * 4


def test_a_disk_without_room_for_the_rows_is_named_and_left_as_it_was(
    catalogue: Catalogue, words: EncoderFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shop = catalogue({"item_id": "a", "title": "red mug"})
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(UserError, match="No space left on device"):
        encode_words(shop, words)
    assert not list(shop.glob(".text*"))


def test_features_from_elsewhere_are_not_written_over(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue({"item_id": "a", "title": "red mug"})
    np.save(shop / "text_feat.npy", np.ones((1, 2)))
    with pytest.raises(UserError, match="was not made by 'mts4mm encode'"):
        encode_words(shop, words)
    np.testing.assert_array_equal(features(shop), np.ones((1, 2)))
    encode_words(shop, words, overwrite=True)
    np.testing.assert_allclose(features(shop), [shares("red", "mug")])


@pytest.mark.parametrize("interrupted", [False, True])
def test_features_from_elsewhere_in_the_place_of_ours_are_not_written_over(
    catalogue: Catalogue, words: EncoderFolder, interrupted: bool
) -> None:
    """Nor where an earlier run did not end."""
    shop = catalogue({"item_id": "a", "title": "red mug"})
    encode_words(shop, words)
    if interrupted:
        (shop / f".text_feat.{words.digest[:16]}.journal").touch()
    np.save(shop / "text_feat.npy", np.ones((1, 2)))
    with pytest.raises(UserError, match="or was changed since"):
        encode_words(shop, words)
    np.testing.assert_array_equal(features(shop), np.ones((1, 2)))


def test_a_run_that_ended_between_features_and_manifest_is_gone_on_with(
    catalogue: Catalogue, words: EncoderFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    rows = [{"item_id": str(row), "title": "mug " * (row + 1)} for row in range(5)]
    shop = catalogue(*rows)
    with monkeypatch.context() as patch:
        patch.setattr(encoding, "write_manifest", refuse)
        for _ in range(2):
            with pytest.raises(UserError, match="cannot be written"):
                encode_words(shop, words)
            assert features(shop).shape == (5, 5)
    outcome = encode_words(shop, words)
    assert (outcome.encoded, outcome.reused) == (0, 5)
    assert read_manifest(shop, "text") is not None
    assert not list(shop.glob(".text*"))


def test_where_nothing_can_be_encoded_nothing_is_written(catalogue: Catalogue, colours: EncoderFolder) -> None:
    shop = catalogue({"item_id": "a", "image": "images/none.png"})
    with pytest.raises(UserError, match=r"(?s)no item has anything.*item a: is missing"):
        encode_pictures(shop, colours)
    assert not list(shop.glob("image_feat*"))


def test_two_at_once_are_told_apart(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue({"item_id": "a", "title": "red mug"})

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another process is encoding"):
            encode_words(shop, words)

    encode_words(shop, words, progress=second)


def test_a_dataset_that_must_not_be_written_to_is_linked(
    catalogue: Catalogue, words: EncoderFolder, colours: EncoderFolder, tmp_path: Path
) -> None:
    shop = catalogue(
        *({"item_id": str(row), "title": "mug " * (row + 1), "image": f"images/{row}.png"} for row in range(4))
    )
    for row in range(4):
        (shop / "images" / f"{row}.png").write_bytes(saved(picture("red"), "PNG"))
    pairs = [f"u{user},{item}" for user in range(4) for item in range(4)]
    (shop / "interactions.csv").write_text("\n".join(["user_id,item_id", *pairs]))
    before = sorted(path.name for path in shop.iterdir())
    out = tmp_path / "elsewhere"
    for _ in range(2):
        link_dataset(shop, out, ["text", "image"])
        encode_words(shop, words, out)
        encode_pictures(shop, colours, out)
    assert sorted(path.name for path in shop.iterdir()) == before
    assert encode_pictures(out, colours).reused == 4
    data = load_dataset(out)
    assert data.modalities.keys() == {"image", "text"}
    assert data.encoders["text"].digest == words.digest
    (out / "interactions.csv").unlink()
    (out / "interactions.csv").write_text("mine")
    with pytest.raises(UserError, match="in the way of a link"):
        link_dataset(shop, out, ["text", "image"])


def test_what_is_not_encoded_anew_keeps_its_encoder_behind_a_link(
    catalogue: Catalogue, words: EncoderFolder, colours: EncoderFolder, tmp_path: Path
) -> None:
    shop = catalogue(*({"item_id": str(row), "title": "mug", "image": f"images/{row}.png"} for row in range(3)))
    for row in range(3):
        (shop / "images" / f"{row}.png").write_bytes(saved(picture("red"), "PNG"))
    pairs = [f"u{user},{item}" for user in range(4) for item in range(3)]
    (shop / "interactions.csv").write_text("\n".join(["user_id,item_id", *pairs]))
    encode_words(shop, words)
    encode_pictures(shop, colours)
    out = tmp_path / "elsewhere"
    for _ in range(2):
        link_dataset(shop, out, ["text"])
        encode_words(shop, words, out)
        assert load_dataset(out).encoders.keys() == {"image", "text"}
    assert encoder_path(out, "image").is_symlink()
    link_dataset(shop, out, ["text", "image"])
    encode_pictures(shop, colours, out)
    assert not encoder_path(out, "image").is_symlink()
    assert load_dataset(out).encoders.keys() == load_dataset(shop).encoders.keys() == {"image", "text"}


def test_one_modality_encoded_again_beside_a_linked_dataset_leaves_the_others_as_they_are(
    catalogue: Catalogue, words: EncoderFolder, colours: EncoderFolder, tmp_path: Path
) -> None:
    shop = catalogue(*({"item_id": str(row), "title": "mug", "image": f"images/{row}.png"} for row in range(3)))
    for row in range(3):
        (shop / "images" / f"{row}.png").write_bytes(saved(picture("red"), "PNG"))
    encode_words(shop, words)
    encode_pictures(shop, colours)
    out = tmp_path / "elsewhere"
    link_dataset(shop, out, ["text", "image"])
    encode_words(shop, words, out)
    encode_pictures(shop, colours, out)
    link_dataset(shop, out, ["text"])
    encode_words(shop, words, out)
    for own in (out / "image_feat.npy", out / "image_feat.json", encoder_path(out, "image")):
        assert own.exists()
        assert not own.is_symlink()
    assert encode_pictures(shop, colours, out).reused == 3


def test_encoders_are_known_only_while_the_features_are_theirs(catalogue: Catalogue, words: EncoderFolder) -> None:
    shop = catalogue(*({"item_id": str(row), "title": "mug"} for row in range(3)))
    pairs = [f"u{user},{item}" for user in range(4) for item in range(3)]
    (shop / "interactions.csv").write_text("\n".join(["user_id,item_id", *pairs]))
    encode_words(shop, words)
    assert load_dataset(shop).encoders.keys() == {"text"}
    np.save(shop / "text_feat.npy", np.ones((3, 4), np.float32))
    assert load_dataset(shop).encoders == {}


def test_a_table_in_another_order_is_refused_until_it_is_encoded_again(
    catalogue: Catalogue, words: EncoderFolder
) -> None:
    items = [{"item_id": word, "title": word} for word in ("red", "blue", "mug")]
    shop = catalogue(*items)
    (shop / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u{n},red\nu{n},mug\n" for n in range(4)))
    encode_words(shop, words)
    load_dataset(shop)
    catalogue(items[0], items[2], items[1])
    with pytest.raises(UserError, match=r"2 rows were made of other items.*mts4mm encode .*row 1: of item 'blue', now"):
        load_dataset(shop)
    assert encode_words(shop, words).encoded == 0
    data = load_dataset(shop)
    assert data.modalities["text"].features.argmax(axis=1).tolist() == [WORDS.index(each) for each in data.item_ids]


def test_the_columns_that_words_came_from_are_kept_and_read_again(
    catalogue: Catalogue, words: EncoderFolder, store: Path
) -> None:
    shop = catalogue(
        {"item_id": "a", "Title": "red", "kind": "mug", "description": "lamp"},
        {"item_id": "b", "Title": "blue", "kind": "lamp", "description": "mug"},
    )
    chosen = {"text": ["kind", "title"]}
    for columns, made in ((chosen, 2), ({}, 0)):
        (outcome,), skipped = encode_catalogue(shop, shop, {"text": "words"}, columns, store, threads=1)
        assert (outcome.encoded, skipped) == (made, {})
        expected = [shares("mug", "[UNK]", "red"), shares("lamp", "[UNK]", "blue")]
        np.testing.assert_allclose(features(shop), expected, atol=1e-6)
        kept = read_folder(encoder_path(shop, "text"))
        assert kept.spec.columns == read_manifest(shop, "text").fields == ("kind", "Title")
        assert kept.digest == words.digest, "the same words still give the same vectors"
        assert kept.spec.signature != words.spec.signature


@pytest.mark.parametrize(("noted", "read"), [(True, ("title",)), (False, ("title", "description"))])
def test_some_of_the_usual_columns_once_asked_for_stay_the_only_ones(
    catalogue: Catalogue, words: EncoderFolder, store: Path, noted: bool, read: tuple[str, ...]
) -> None:
    shop = catalogue({"item_id": "a", "title": "red", "description": "mug"})
    encode_catalogue(shop, shop, {"text": "words"}, {"text": ["title"]}, store, threads=1)
    if not noted:
        path = shop / "text_feat.json"
        document = json.loads(path.read_bytes())
        assert document.pop("asked") == ["title"]
        path.write_text(json.dumps(document))
    encode_catalogue(shop, shop, {"text": "words"}, {}, store, threads=1)
    assert read_manifest(shop, "text").fields == read


def test_columns_that_somebody_names_are_there_or_the_command_says_which_is_not(
    catalogue: Catalogue, words: EncoderFolder, colours: EncoderFolder, store: Path
) -> None:
    shop = catalogue({"item_id": "a", "title": "red", "kind": "mug", "photo": "images/a.png"})
    (shop / "images" / "a.png").write_bytes(saved(picture("red"), "PNG"))

    def encode(*words: str) -> BaseException | None:
        return CliRunner().invoke(app, ["encode", str(shop), "--store", str(store), *words]).exception

    for option, known in (("--text-columns", "title"), ("--image-columns", "photo")):
        error = encode(option, f"{known},colour")
        assert isinstance(error, UserError)
        assert f"{option}: the items table has no column colour; it has item_id, kind, photo, title" in str(error)
        assert not list(shop.glob("*_feat*")), "nothing is encoded before all columns are known"
        error = encode(option, " ,")
        assert isinstance(error, UsageError)
        assert f"{option} names no column" in str(error)
    fitted = CliRunner().invoke(app, ["encoders", "fit", "image", str(shop), "--image-columns", "photo,cover"])
    assert "no column cover with pictures" in str(fitted.exception)
    assert encode("--text-columns", " Title , kind,", "--image-columns", "photo") is None
    np.testing.assert_allclose(features(shop), [shares("red", "[UNK]", "mug")], atol=1e-6)
    assert read_manifest(shop, "image").fields == ("photo",)


def test_a_description_that_comes_later_is_read_as_well(
    catalogue: Catalogue, words: EncoderFolder, store: Path
) -> None:
    for item in ({"item_id": "a", "title": "red"}, {"item_id": "a", "title": "red", "description": "mug"}):
        shop = catalogue(item)
        encode_catalogue(shop, shop, {"text": "words"}, {}, store, threads=1)
    np.testing.assert_allclose(features(shop), [shares("red", "[UNK]", "mug")], atol=1e-6)
