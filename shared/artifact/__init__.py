"""The artefact: what the trainer hands to the service, one immutable folder a version in a store folder.

    <store>/CURRENT                       the live version, and below it those live before; replaced atomically
    <store>/<version>/manifest.json       what the version is, and the sha256 and size of every other file
                      README.md           the model card
                      user_embeddings.npy, item_embeddings.npy                 float32 [rows, width]
                      user_ids_{bytes,offsets,order}.npy, item_ids_*.npy       see shared/ids.py
                      train_indptr.npy, train_indices.npy                      CSR of training interactions
                      fold_in.npy                                              float32 [width, width], shared/fold_in.py
                      items.jsonl, items_offsets.npy                           item metadata, optional
                      parts.json, user_parts.npy, fold_in_parts.npy            shared/parts.py, optional
                      attached.<name>                                          files of other modules, optional

The student's embeddings are all there is of the model (Eq. 31 needs no more, and what folds new users in follows
from them); the teachers stay with the trainer. Nothing is pickled. A version is written under a temporary name,
synced and renamed, so that it is there whole or not at all. Reading refuses whatever differs from what was published,
by name.
"""

from shared.artifact.layout import CURRENT
from shared.artifact.loading import Artifact, load_path, verify
from shared.artifact.store import (
    VersionSummary,
    activate,
    activations,
    current_version,
    follow,
    glance,
    list_versions,
    load,
    prune,
    publish,
    rollback,
)
from shared.artifact.writing import Provenance, StudentModel
from shared.manifest import DatasetInfo, FileEntry, Manifest, Split

__all__ = [
    "CURRENT",
    "Artifact",
    "DatasetInfo",
    "FileEntry",
    "Manifest",
    "Provenance",
    "Split",
    "StudentModel",
    "VersionSummary",
    "activate",
    "activations",
    "current_version",
    "follow",
    "glance",
    "list_versions",
    "load",
    "load_path",
    "prune",
    "publish",
    "rollback",
    "verify",
]
