"""``mts4mm encode``: the vectors of a catalogue's items, made once and only where something is new.

What is unchanged since the last run, or was made by a run that was killed, is taken over; what cannot be read is
reported by item and counts as missing.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from shared import durable
from shared.encoders import Encoder, EncoderFolder, PictureError, TextSpec, open_encoder, write_folder
from shared.encoders.encoder import BATCH, Tokens
from shared.encoders.folder import file_digest
from shared.errors import UserError
from trainer.encoders.features_manifest import (
    FeaturesManifest,
    encoder_path,
    features_path,
    read_manifest,
    write_manifest,
)
from trainer.encoders.journal import Journal

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""

WINDOW = 16 * BATCH
"""Items that are prepared ahead, and that texts are put in order of length among."""

LOCK = ".encode.lock"
"""Held by who writes a folder's features; it stays behind, empty."""


class Source(Protocol):
    """Where the raw contents of items come from."""

    columns: tuple[str, ...]

    def read(self, row: int) -> str | bytes | None:
        """The content of an item, or None where there is none; PictureError where it cannot be read."""


@dataclass
class Outcome:
    """How a modality fared.

    Attributes:
        encoded: items whose vector was made now.
        reused: items whose vector was there already.
        missing: items without a vector: those of ``faults``, and those that had nothing to encode.
        faults: by item id, what is wrong with its file.
        silent: by column, why nothing of it is in the vectors, and how to mend it.
    """

    modality: str
    encoder: str
    width: int
    items: int
    encoded: int = 0
    reused: int = 0
    missing: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


def encode_modality(
    modality: str,
    source: Source,
    item_ids: list[str],
    folder: EncoderFolder,
    out: Path,
    *,
    threads: int,
    asked: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Write ``<modality>_feat.npy``, its manifest and its encoder to ``out``.

    Args:
        modality: what the files are named after.
        source: of the items' contents.
        item_ids: in the order of the rows.
        folder: the encoder.
        out: an existing folder.
        threads: for preparing contents, and for the network.
        asked: the columns that were wanted, those that the table lacks included; they are read the next time too.
        overwrite: whether features that were not made here may be written over.
        progress: told how far it is.

    Raises:
        UserError: no item could be encoded, the place is taken or cannot be written, or another process is at it.
    """
    with _writing(out):
        if not overwrite and features_path(out, modality).exists() and not _made_here(out, modality):
            raise UserError(
                f"{features_path(out, modality)}: was not made by 'mts4mm encode', or was changed since; move it away, "
                "or give --replace"
            )
        wanted = None if asked is None else tuple(asked)
        encoder = open_encoder(folder, threads)
        run = _Run(modality, source, wanted, item_ids, _reading(folder, source.columns), out, encoder)
        with ThreadPoolExecutor(threads) as pool:
            return run.finish(pool, progress)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """The only writer of a folder's features; what it cannot write is named."""
    try:
        with durable.exclusive(out / LOCK, wait=False):
            yield
    except BlockingIOError:
        raise UserError(f"{out}: another process is encoding into this folder; wait for it or stop it") from None
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); give another folder with --out, or make room in this one"
        ) from error


def _made_here(out: Path, modality: str) -> bool:
    """Whether the features that are there are ours: their manifest says so, or a run that was killed before it."""
    if read_manifest(out, modality) is not None:
        return True
    promise = _promise_path(out, modality)
    return promise.exists() and promise.read_text() == file_digest(features_path(out, modality))


def _promise_path(out: Path, modality: str) -> Path:
    """The sha256 of features that are about to be put in place, until their manifest is there."""
    return out / f".{modality}_feat.sha256"


def _reading(folder: EncoderFolder, columns: tuple[str, ...]) -> EncoderFolder:
    """An encoder that knows which columns its words come from, for the items that come later."""
    if not isinstance(folder.spec, TextSpec):
        return folder
    return replace(folder, spec=folder.spec.model_copy(update={"columns": columns}))


@dataclass(frozen=True)
class _Made:
    """An item's content made ready in a thread; nothing but ``fault`` where it could not be."""

    row: int
    content: str | None = None
    prepared: Any = None
    fault: str | None = None


class _Run:
    def __init__(
        self,
        modality: str,
        source: Source,
        asked: tuple[str, ...] | None,
        item_ids: list[str],
        folder: EncoderFolder,
        out: Path,
        encoder: Encoder[Any, Any],
    ) -> None:
        self._source = source
        self._asked = asked
        self._ids = item_ids
        self._folder = folder
        self._out = out
        self._encoder = encoder
        self._outcome = Outcome(modality, folder.spec.name, encoder.width, len(item_ids))
        self._contents: list[str | None] = [None] * len(item_ids)
        self._known = self._earlier_vectors()
        stem = f".{modality}_feat"
        self._unfinished = out / f"{stem}.unfinished"
        self._journal_path = out / f"{stem}.{folder.digest[:16]}.journal"
        for stale in set(out.glob(f"{stem}.*.journal")) - {self._journal_path}:
            stale.unlink()

    def finish(self, pool: ThreadPoolExecutor, progress: Progress) -> Outcome:
        vectors = self._empty_rows()
        self._journal = Journal(self._journal_path, self._encoder.width)
        self._known |= self._journal.vectors()
        try:
            done = 0
            progress(done, len(self._ids))
            for window in self._prepared_windows(pool):
                for step in self._steps(window, vectors):
                    done += step
                    progress(done, len(self._ids))
        finally:
            self._journal.close()
        self._publish(vectors)
        return self._outcome

    def _empty_rows(self) -> np.memmap[Any, np.dtype[np.float32]]:
        """The unfinished file, (items, width), with all its room: a full disk met at a row would kill the process."""
        shape = (len(self._ids), self._encoder.width)
        vectors = open_memmap(self._unfinished, mode="w+", dtype=np.float32, shape=shape)
        try:
            with self._unfinished.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, self._unfinished.stat().st_size)
        except OSError:
            self._unfinished.unlink()
            raise
        return vectors

    def _earlier_vectors(self) -> dict[str, NDArray[np.float32]]:
        """The rows of the features that this encoder has made before, by content."""
        manifest = read_manifest(self._out, self._outcome.modality)
        if manifest is None or manifest.encoder != self._folder.digest:
            return {}
        rows = np.load(features_path(self._out, self._outcome.modality), mmap_mode="r", allow_pickle=False)
        if rows.shape != (len(manifest.contents), self._encoder.width):
            return {}
        return {content: row for content, row in zip(manifest.contents, rows, strict=True) if content}

    def _prepared_windows(self, pool: ThreadPoolExecutor) -> Iterator[list[_Made]]:
        """``WINDOW`` items at a time in their order; the next are made ready while these are looked at."""
        rows = iter(range(len(self._ids)))

        def begin() -> list[Future[_Made]]:
            return [pool.submit(self._made, row) for row in islice(rows, WINDOW)]

        ahead = begin()
        while ahead:
            futures, ahead = ahead, begin()
            yield [future.result() for future in futures]

    def _made(self, row: int) -> _Made:
        """Read, recognise, prepare; runs in a thread."""
        try:
            raw = self._source.read(row)
            if raw is None:
                return _Made(row)
            content = content_digest(raw)
            if content in self._known:
                return _Made(row, content)
            prepared = self._encoder.prepare(raw)
        except PictureError as error:
            return _Made(row, fault=str(error))
        return _Made(row) if prepared is None else _Made(row, content, prepared)

    def _steps(self, window: list[_Made], vectors: NDArray[np.float32]) -> Iterator[int]:
        """Fill in the rows of a window; yields how many more are done."""
        new = []
        for made in window:
            self._contents[made.row] = made.content
            if made.prepared is not None:
                new.append(made)
            elif made.content is not None:
                vectors[made.row] = self._known[made.content]
                self._outcome.reused += 1
            else:
                vectors[made.row] = np.nan
                self._outcome.missing += 1
                if made.fault is not None:
                    self._outcome.faults[self._ids[made.row]] = made.fault
        yield len(window) - len(new)
        new.sort(key=_length)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            made_now = self._encoder.run([each.prepared for each in batch])
            vectors[[each.row for each in batch]] = made_now
            self._journal.append([each.content for each in batch if each.content], made_now)
            self._outcome.encoded += len(batch)
            yield len(batch)

    def _publish(self, vectors: np.memmap[Any, np.dtype[np.float32]]) -> None:
        """The encoder, the features, then the manifest that vouches for both."""
        outcome = self._outcome
        if outcome.missing == outcome.items:
            self._unfinished.unlink()
            raise UserError(_nothing(outcome, self._source.columns))
        vectors.flush()
        write_folder(
            encoder_path(self._out, outcome.modality),
            self._folder.spec,
            self._folder.files,
            replace=True,
            link=True,
        )
        with self._unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        digest = file_digest(self._unfinished)
        promise = _promise_path(self._out, outcome.modality)
        with durable.replacing(promise) as file:
            file.write(digest.encode())
        self._unfinished.replace(features_path(self._out, outcome.modality))
        manifest = FeaturesManifest(
            modality=outcome.modality,
            encoder=self._folder.digest,
            described=self._folder.spec.model_dump(mode="json"),
            fields=self._source.columns,
            features=digest,
            item_ids=tuple(self._ids),
            contents=tuple(self._contents),
            faults=outcome.faults,
            asked=self._asked,
        )
        write_manifest(self._out, manifest)
        self._journal_path.unlink()
        promise.unlink()


def content_digest(raw: str | bytes | None) -> str | None:
    """By which a content is known again; None where there is none."""
    if raw is None:
        return None
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw).hexdigest()


def _length(made: _Made) -> int:
    """Texts of one length cost no padding."""
    return len(made.prepared.ids) if isinstance(made.prepared, Tokens) else 0


def _nothing(outcome: Outcome, columns: tuple[str, ...]) -> str:
    examples = "".join(f"\n- item {item}: {fault}" for item, fault in islice(outcome.faults.items(), 3))
    return f"no item has anything to encode as {outcome.modality} in {', '.join(columns)}: correct these{examples}"
