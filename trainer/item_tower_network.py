"""The item tower as files of an artefact: an ONNX network that computes what :mod:`trainer.item_tower` has fitted."""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from shared.errors import UserError
from shared.item_tower import DESCRIPTION, NETWORK, OUTPUT, ItemTower
from trainer.dataset import Dataset
from trainer.item_tower import (
    COSINE_POWER,
    LEAST_WEIGHT,
    NEIGHBOURS,
    FittedTower,
    KernelMap,
    Matrix,
    ModalityMap,
    NeighbourMap,
    evenly_spread,
    fit_item_tower,
    nearest,
    side_by_side,
    unit_rows,
)

OPSET, IR_VERSION = 17, 8
CHECKED = 64
TOLERANCE = 1e-3
"""How far the network may be from the vectors computed here, of the largest number in them."""

CLEARLY = 1e-5
"""A difference of cosines that is none of rounding."""


def item_tower_attachments(
    dataset: Dataset, modalities: Sequence[str], user_embeddings: Matrix, item_embeddings: Matrix
) -> dict[str, bytes]:
    """The files of a tower, for ``StudentModel.attachments``; none if no modality has features.

    Args:
        dataset: that the embeddings were trained on.
        modalities: that they were trained with.
        user_embeddings: (users, width), as exported.
        item_embeddings: (items, width), as exported.

    Raises:
        UserError: the exported network does not give the vectors that were fitted.
    """
    tower = fit_item_tower(dataset, modalities, user_embeddings, item_embeddings)
    if tower is None:
        return {}
    network = onnx_network(tower)
    _check_network(network, tower, dataset)
    return {NETWORK: network, DESCRIPTION: tower.description.model_dump_json(indent=1).encode()}


def onnx_network(tower: FittedTower) -> bytes:
    """The tower as a network: by modality an input (items, d_m), one output ``vectors`` (items, width)."""
    constants: dict[str, NDArray[Any]] = {
        "tower.least": np.array(np.finfo(np.float32).tiny, np.float32),
        "tower.nothing": np.array(0, np.float32),
        "tower.same": np.array(1, np.float32),
        "tower.power": np.array(COSINE_POWER, np.float32),
        "tower.least_weight": np.array(LEAST_WEIGHT, np.float32),
        "tower.middle": np.array([1], np.int64),
        "tower.centre": np.float32(tower.scale) * tower.centre,
        "tower.weights": np.float32(tower.scale) * tower.weights,
    }
    nodes: list[NodeProto] = []
    voices = dict(tower.maps)
    for index, (name, modality) in enumerate(tower.maps.items()):
        constants[f"{name}.bit"] = np.array(1 << index, np.int64)
        nodes += [*_part_nodes(name, modality), *_presence_nodes(name)]
    if tower.joint is not None:
        joined = "+".join(tower.joint.modalities)
        voices[joined] = tower.joint.map
        units = [f"{name}.unit" for name in tower.joint.modalities]
        nodes.append(helper.make_node("Concat", units, [joined], axis=1))
        nodes += _part_nodes(joined, tower.joint.map)
    for index, (name, voice) in enumerate(voices.items()):
        constants |= {**_numbers(name, voice), f"{name}.column": np.array([index], np.int64)}
    code = _added(nodes, [f"{name}.code" for name in tower.maps])
    nodes.append(helper.make_node("Gather", ["tower.weights", code], ["tower.chosen"], axis=0))
    for name in voices:
        nodes += [
            helper.make_node("Gather", ["tower.chosen", f"{name}.column"], [f"{name}.weight"], axis=1),
            helper.make_node("Mul", [f"{name}.part", f"{name}.weight"], [f"{name}.weighed"]),
        ]
    summed = _added(nodes, [f"{name}.weighed" for name in voices])
    nodes.append(helper.make_node("Add", [summed, "tower.centre"], [OUTPUT]))
    return _model(nodes, constants, tower)


def _numbers(name: str, voice: ModalityMap) -> dict[str, NDArray[Any]]:
    """What the nodes of ``_part_nodes`` compute with."""
    numbers: dict[str, NDArray[Any]] = {
        f"{name}.mean": voice.mean,
        f"{name}.offset": voice.offset,
        f"{name}.others": voice.others.T,
        f"{name}.carried": voice.carried,
    }
    if isinstance(voice, NeighbourMap):
        numbers[f"{name}.matrix"] = voice.matrix
        numbers[f"{name}.count"] = np.array([min(NEIGHBOURS, len(voice.others))], np.int64)
    else:
        numbers[f"{name}.sharpness"] = np.array(voice.sharpness, np.float32)
    return numbers


def _part_nodes(name: str, voice: ModalityMap) -> list[NodeProto]:
    """Nodes for one modality, or for the joint one: its ``part`` of the vectors."""
    node = partial(_node, name)
    return [
        node("Sub", [name, f"{name}.mean"], "centred"),
        node("ReduceL2", [f"{name}.centred"], "length", axes=[1], keepdims=1),
        node("Max", [f"{name}.length", "tower.least"], "divisor"),
        node("Div", [f"{name}.centred", f"{name}.divisor"], "unit"),
        node("Cast", [f"{name}.others"], "others_single", to=TensorProto.FLOAT),
        node("MatMul", [f"{name}.unit", f"{name}.others_single"], "cosines"),
        *(_neighbour_nodes(name) if isinstance(voice, NeighbourMap) else _kernel_nodes(name)),
        node("Add", [f"{name}.joined", f"{name}.offset"], "part"),
    ]


def _presence_nodes(name: str) -> list[NodeProto]:
    """Nodes for the ``code`` of a modality: its bit where an item has it, else 0."""
    node = partial(_node, name)
    return [
        node("Abs", [name], "sizes"),
        node("ReduceMax", [f"{name}.sizes"], "largest", axes=[1], keepdims=0),
        node("Greater", [f"{name}.largest", "tower.nothing"], "present"),
        node("Cast", [f"{name}.present"], "number", to=TensorProto.INT64),
        node("Mul", [f"{name}.number", f"{name}.bit"], "code"),
    ]


def _neighbour_nodes(name: str) -> list[NodeProto]:
    node = partial(_node, name)
    return [
        node("MatMul", [f"{name}.unit", f"{name}.matrix"], "mapped"),
        helper.make_node("TopK", [f"{name}.cosines", f"{name}.count"], [f"{name}.nearest", f"{name}.neighbours"]),
        node("Max", [f"{name}.nearest", "tower.nothing"], "positive"),
        node("Pow", [f"{name}.positive", "tower.power"], "powers"),
        node("ReduceSum", [f"{name}.powers", "tower.middle"], "power_sum", keepdims=1),
        node("Max", [f"{name}.power_sum", "tower.least_weight"], "power_divisor"),
        node("Div", [f"{name}.powers", f"{name}.power_divisor"], "shares"),
        node("Unsqueeze", [f"{name}.shares", "tower.middle"], "share_rows"),
        node("Gather", [f"{name}.carried", f"{name}.neighbours"], "gathered", axis=0),
        node("Cast", [f"{name}.gathered"], "gathered_single", to=TensorProto.FLOAT),
        node("MatMul", [f"{name}.share_rows", f"{name}.gathered_single"], "around_rows"),
        node("Squeeze", [f"{name}.around_rows", "tower.middle"], "around"),
        node("Add", [f"{name}.mapped", f"{name}.around"], "joined"),
    ]


def _kernel_nodes(name: str) -> list[NodeProto]:
    node = partial(_node, name)
    return [
        node("Sub", [f"{name}.cosines", "tower.same"], "apart"),
        node("Mul", [f"{name}.apart", f"{name}.sharpness"], "sharpened"),
        node("Exp", [f"{name}.sharpened"], "alike"),
        node("MatMul", [f"{name}.alike", f"{name}.carried"], "joined"),
    ]


def _node(name: str, kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [f"{name}.{output}"], **attributes)


def _added(nodes: list[NodeProto], terms: list[str]) -> str:
    """Add nodes that sum the terms; returns the sum's name."""
    total = terms[0]
    for term in terms[1:]:
        nodes.append(helper.make_node("Add", [total, term], [f"{total}+{term}"]))
        total = f"{total}+{term}"
    return total


def _model(nodes: list[NodeProto], constants: Mapping[str, NDArray[Any]], tower: FittedTower) -> bytes:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["items", len(modality.mean)])
        for name, modality in tower.maps.items()
    ]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["items", len(tower.centre)])
    stored = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "item_tower", inputs, [output], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _check_network(network: bytes, tower: FittedTower, dataset: Dataset) -> None:
    """Compare the network with the tower on real features, with every set of modalities.

    Raises:
        UserError: they differ.
    """
    names = list(tower.maps)
    loaded = ItemTower(network, tower.description)
    for code in range(2 ** len(names)):
        features = _to_check(tower, dataset, [name for bit, name in enumerate(names) if code >> bit & 1])
        wanted = tower.vectors(features)
        found = loaded.vectors([{name: features[name][row] for name in names} for row in range(len(wanted))])
        if not np.abs(found - wanted).max(initial=0) <= TOLERANCE * np.abs(wanted).max(initial=1e-30):
            raise UserError(f"{NETWORK}: onnxruntime gives other vectors than were fitted; install the version pinned")


def _to_check(tower: FittedTower, dataset: Dataset, chosen: Sequence[str]) -> dict[str, Matrix]:
    """Features by modality, zeros but for the chosen ones, of items that have all of these, or put together of several.

    Only such whose last neighbour is nearer than the next: among many that are alike, as where a shop shows one
    picture for all that it has none of, either has its own last one, and both are right.
    """
    present = [np.flatnonzero(dataset.modalities[name].present) for name in chosen]
    whole = reduce(np.intersect1d, present) if present else np.zeros(1, np.int64)
    sources = [whole if len(whole) else rows for rows in present]
    count = min([CHECKED, *map(len, sources or [whole])])
    features = {name: np.zeros((count, len(modality.mean)), np.float32) for name, modality in tower.maps.items()}
    for name, rows in zip(chosen, sources, strict=True):
        features[name] = _features(dataset, name)[evenly_spread(rows, count)]
    clear = np.ones(count, np.bool_)
    for name in chosen:
        clear &= _clear(tower.maps[name], features[name])
    if tower.joint is not None and set(tower.joint.modalities) <= set(chosen):
        clear &= _clear(tower.joint.map, side_by_side(tower.maps, features, tower.joint.modalities))
    return {name: rows[clear] for name, rows in features.items()}


def _clear(modality: ModalityMap, features: Matrix) -> NDArray[np.bool_]:
    """Which of some items have a last neighbour that is clearly nearer than the next one, (items,)."""
    others = modality.others.astype(np.float32)
    if isinstance(modality, KernelMap) or len(others) <= NEIGHBOURS:
        return np.ones(len(features), np.bool_)
    cosines, _ = nearest(others, unit_rows(features - modality.mean), NEIGHBOURS + 1)
    clear: NDArray[np.bool_] = cosines[:, -2] - cosines[:, -1] > CLEARLY
    return clear


def _features(dataset: Dataset, name: str) -> Matrix:
    features = dataset.modalities[name].features
    assert features is not None  # noqa: S101 (the tower has no modality without)
    return features
