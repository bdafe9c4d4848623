"""The night, step by step: events in, a better model out, or none.

    drain       events from Redis into the log; forgotten users out of it, and of earlier reports
    snapshot    base, events and catalogue into one dataset directory, with its fingerprint
    validate    what is wrong with it ends the night
    encode      features of what is new, where the dataset's come from encoders
    train       warm from the live model, from scratch on a schedule
    gate        champion against challenger
    publish     the version, not live yet
    activate    CURRENT, and a word on the changes channel
    confirm     the service answers with it
    watch       the service for a while; back to the champion if it got worse
    prune       old versions, and live items that the models in use know
    forget      where the champion stays: who was forgotten since its training leaves it
    report      for people at nine in the morning

Each step is noted in the journal when it is done, and doing one again is doing it once.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared import artifact, durable
from shared.artifact import Artifact
from shared.errors import UserError
from shared.forgotten import forgotten_until, trained_until
from shared.index import files, report
from trainer.dataset import TRAIN, VALIDATION, Dataset, SplitSpec, load_dataset, validate_directory
from trainer.device import choose_device
from trainer.evaluation import Holdout
from trainer.export import item_tower, publish
from trainer.index_choice import choose_index
from trainer.nightly import additions, encoding, fault, tombstones
from trainer.nightly.base import base_digest
from trainer.nightly.candidate import Candidate, fresh_holdout, train_candidate
from trainer.nightly.contenders import Challenger, challenger, champion
from trainer.nightly.drain import StateOpener, drain, patiently
from trainer.nightly.encoding import encode_new
from trainer.nightly.event_log import EventLog
from trainer.nightly.folded import fold_in_held_out
from trainer.nightly.gate import judge, teacher_shares
from trainer.nightly.handover import Handover
from trainer.nightly.journal import COST, Journal, Result, tidy, unfinished
from trainer.nightly.outcome import EndedError, Outcome, OutOfTimeError
from trainer.nightly.places import Places
from trainer.nightly.report import forget_in_reports, write_report
from trainer.nightly.service_watch import Service
from trainer.nightly.settings import NightlySettings
from trainer.nightly.snapshot import Sources, read_dropped, write_snapshot
from trainer.nightly.without_users import publish_without
from trainer.own_process import own_memory_mb
from trainer.recipe import Recipe, load_recipe
from trainer.training import EpochRecord, Listener, Progress, TrainedStudent, TrainingRun
from trainer.warm_start import WarmStart

TRAINING_SHARE = 0.7
"""Of the time budget, when training stops; what comes after it has the rest."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watcher:
    """Who is told what the night does, to show it."""

    step: Callable[[str], None] = lambda name: None
    listener: Listener = field(default_factory=Listener)


@dataclass(frozen=True)
class Ended:
    """How a night ended, and its journal."""

    outcome: Outcome
    journal: Journal
    reason: str


class Night:
    """One run of the job; the caller holds the lock of :func:`alone`."""

    def __init__(
        self,
        places: Places,
        settings: NightlySettings,
        open_state: StateOpener,
        weights: dict[str, float],
        *,
        device: str = "auto",
        dry_run: bool = False,
        fresh: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        """Begin a night, or take up the one that did not end.

        Args:
            places: where everything is.
            settings: of the job.
            open_state: opens the user state.
            weights: of the types of events.
            device: auto, cpu or cuda.
            dry_run: train and judge, and change nothing about the models.
            fresh: begin a new night even if one did not end.
            watcher: is told what the night does.

        Raises:
            UserError: the base or the last journal cannot be read, or a dry run would end a night that goes on.
        """
        self._places = places
        self._settings = settings
        self._open_state = open_state
        self._weights = weights
        self._device = device
        self._dry_run = dry_run
        self._watcher = watcher or Watcher()
        self._began = time.monotonic()
        self._recipe = load_recipe(settings.train.recipe, settings.train.set)
        self._service = None if places.service is None else Service(places.service)
        self.journal = self._taken_up(fresh=fresh)
        self._handover = Handover(places, settings, open_state, self._service, self.journal)

    def run(self) -> Ended:
        """Go through the steps that are left.

        Raises:
            UserError: a step failed, and the night with it; a rerun goes on from there where that can help, and begins
                a new night where not. Or the service wants a key.
        """
        if self._service is not None:
            self._service.ask(["nightly"])  # a night that lacks a key should not train before it says so
        try:
            self._handover.require_not_rolled_back()
            for name, work in self._steps().items():
                self._watcher.step(name)
                self._do(name, work)
            ended = Ended(Outcome.PROMOTED, self.journal, f"{self._version} is live")
        except EndedError as end:
            ended = Ended(end.outcome, self.journal, str(end) + self._forgotten_left(end.outcome))
        self._watcher.step("report")
        fault.point("report:begin")
        write_report(self._places.own, self.journal, ended.outcome.word, ended.reason)
        fault.point("report:end")
        self._end(ended.outcome.word)
        return ended

    def _forgotten_left(self, outcome: Outcome) -> str:
        """Where the champion stays, have who was forgotten leave it; returns what there is to say of that."""
        stays = outcome in (Outcome.NOTHING_NEW, Outcome.REFUSED) and "publish" not in self.journal.steps
        if not stays or self._dry_run:
            return ""
        self._watcher.step("forget")
        self._do("forget", self._forget)
        left = self._result("forget")
        return f"; users forgotten since its training left the live model: {left['users']}" if left["users"] else ""

    def _end(self, outcome: str) -> None:
        self.journal.end(outcome)
        tidy(self._places.own / "runs", self.journal.name)

    def _do(self, name: str, work: Callable[[], Result]) -> None:
        """Do a step; one that fails on what the night was made from ends the night, so that no rerun repeats it."""
        try:
            self._require_budget(name)
            self.journal.step(name, work)
        except EndedError:
            raise
        except Exception as error:
            if not self._may_go_on_after(error):
                self._end("failed")
            raise

    def _may_go_on_after(self, error: Exception) -> bool:
        """Whether the same night may end otherwise later: once published, or if time, disk or memory was too little.

        What comes before training is cheap, and a new night has the events that came since.
        """
        if "publish" in self.journal.steps:
            return True
        return "encode" in self.journal.steps and (
            isinstance(error, OutOfTimeError | OSError | MemoryError) or _is_torch_out_of_memory(error)
        )

    def _steps(self) -> dict[str, Callable[[], Result]]:
        return {
            "drain": self._drain,
            "snapshot": self._snapshot,
            "validate": self._validate,
            "encode": self._encode,
            "train": self._train,
            "gate": self._gate,
            "verdict": self._verdict,
            "publish": self._publish,
            "activate": lambda: self._handover.activate(self._version),
            "confirm": lambda: self._handover.confirm(self._version),
            "watch": lambda: self._handover.watch(self._version),
            "prune": self._prune,
        }

    def _index_recall(self, trained: TrainedStudent) -> float | None:
        """Choose the index that this model would be served with, and keep it for that; how much of the best it finds.

        None where the model's numbers make no sense.
        """
        if not (np.isfinite(trained.item_embeddings).all() and np.isfinite(trained.user_embeddings).all()):
            return None
        shutil.rmtree(self._index_folder, ignore_errors=True)
        self._index_folder.mkdir()
        seed = self._settings.train.seed
        attached = choose_index(trained.item_embeddings, trained.user_embeddings, seed, self._index_folder)
        content = attached[files.REPORT]
        assert isinstance(content, bytes)  # noqa: S101 (the report is never a file)
        (self._index_folder / files.REPORT).write_bytes(content)
        return report.decode(content).chosen.recall

    def _index(self) -> dict[str, bytes | Path] | None:
        """The index that was judged; None where it is not there any more."""
        found = {name: self._index_folder / name for name in (files.REPORT, files.INDEX)}
        return {name: path for name, path in found.items() if path.exists()} or None

    # Which night it is

    def _taken_up(self, *, fresh: bool) -> Journal:
        runs = self._places.own / "runs"
        identity = {
            "base": str(self._places.base.resolve()),
            "base_digest": base_digest(self._places.base),
            "champion": artifact.current_version(self._places.store),
            "settings": self._settings.model_dump(mode="json"),
            "recipe": self._recipe.model_dump(mode="json"),
            "weights": self._weights,
            "dry_run": self._dry_run,
        }
        last = unfinished(runs)
        if last is not None and self._dry_run and not fresh and not last.identity["dry_run"]:
            raise UserError(
                f"{last.folder}: this night has not ended, and a dry run would put an end to it: give the command "
                "without --dry-run first, or --fresh to forget it"
            )
        if last is not None and not fresh and self._goes_on(last, identity):
            return last
        if last is not None:
            last.end("abandoned")
        return Journal.begin(runs, identity)

    def _goes_on(self, last: Journal, identity: dict[str, Any]) -> bool:
        """Whether an unfinished night is still the one to finish: made by the same, and against the same champion."""
        own = last.steps.get("publish", {}).get("version") or self._published(last.name)
        standing = identity["champion"] if identity["champion"] != own else last.identity["champion"]
        return dict(last.identity) == {**identity, "champion": standing}

    # The steps

    def _drain(self) -> Result:
        log = EventLog(self._places.log)
        with self._open_state() as state:
            drained = drain(state, log)
            forgotten = dict(patiently(lambda: list(state.forgotten())))
        tombstones.keep(self._places.own, forgotten)
        forget_in_reports(self._places.own, forgotten)
        return {**asdict(drained), "forgotten": log.forget(forgotten)}

    def _snapshot(self) -> Result:
        own, live = self._places.own, self._champion()
        until = datetime.now(UTC)
        with self._open_state() as state:
            items = patiently(lambda: list(state.live_items.all(pictures=True)))
            retired = patiently(state.retired).item_ids
            forgotten = dict(patiently(lambda: list(state.forgotten())))
        log = EventLog(self._places.log)
        base, events = load_dataset(self._places.base), log.read()
        named = [*base.user_ids, *events["user_id"].unique(), *([] if live is None else live.users)]
        forgotten = tombstones.among(own, named) | forgotten
        additions.keep(own / "additions", self._places.store, items)
        sources = Sources(
            base=base,
            events=events,
            additions=additions.read(own / "additions"),
            retired=retired,
            forgotten=forgotten,
            weights=self._weights,
            champion=live,
            removed=log.removed(None if live is None else trained_until(live)),
        )
        warm = self._warm_file_to_begin_from is not None
        snapshot = write_snapshot(self._dataset_folder, sources, self._settings, warm=warm)
        if live is not None and snapshot.fresh < self._settings.least_new:
            raise EndedError(
                Outcome.NOTHING_NEW,
                f"{snapshot.fresh} new interactions, and below {self._settings.least_new} there is nothing to learn",
            )
        data = self._dataset()
        since = None if live is None else forgotten_until(live)
        gone = {
            "retired": sorted(retired),
            "forgotten": sorted(forgotten),
            "forgotten_since": sorted(user for user, at in forgotten.items() if since is None or at > since),
        }
        known = {"fingerprint": data.fingerprint, "gone": gone, "forgotten_until": until.isoformat()}
        return {**asdict(snapshot), **known}

    def _validate(self) -> Result:
        report = validate_directory(self._dataset_folder, split=SplitSpec("given"))
        if not report.ok:
            faults = "; ".join(str(each) for each in report.findings if each.severity == "error")
            raise UserError(f"tonight's data cannot be trained on: {faults}")
        data = self._dataset()
        if not len(Holdout(data.interactions(TRAIN), data.interactions(VALIDATION)).users()):
            raise UserError(
                "tonight's data cannot be trained on: of nobody are there interactions both to train on and to choose "
                "the best epoch by; a later night may have them, when users have done more"
            )
        return {"findings": [finding.as_dict() for finding in report.findings]}

    def _encode(self) -> Result:
        data = self._dataset()
        places = encoding.Places(
            self._places.base, self._dataset_folder, self._places.store, self._places.own / "additions"
        )
        done = encode_new(places, list(data.modalities), data.item_ids)
        return {**asdict(done), "fingerprint": self._dataset().fingerprint}

    def _train(self) -> Result:
        data = self._dataset()
        warm_from, warm = self._warm_start(data)
        recipe = self._recipe
        if warm is not None:
            recipe = recipe.model_copy(update={"epochs": min(recipe.epochs, self._settings.train.warm_epochs)})
        if self._settings.events.half_life_days is not None:
            recipe = recipe.model_copy(update={"draw_by_weight": True})
        run = TrainingRun(
            data,
            recipe,
            self._settings.train.seed,
            self.journal.folder / "training",
            choose_device(self._device),
            self._listener(),
            warm,
        )
        candidate = train_candidate(run, data, self._may_train_on)
        candidate.save(self._candidate_file)
        run.for_warm_start(data).save(self._warm_file)
        trained = candidate.trained
        return {
            "warm_from": warm_from,
            "nights_warm": 0 if warm is None else self._nights_warm() + 1,
            "best_epoch": trained.best_epoch,
            "epochs": trained.epochs,
            "validation": trained.validation,
            "test": trained.test,
            "recipe": recipe.model_dump(mode="json"),
        }

    def _gate(self) -> Result:
        data, candidate, live = self._dataset(), Candidate.load(self._candidate_file), self._champion()
        holdout = fresh_holdout(data)
        trained = candidate.trained
        today = challenger(trained.user_embeddings, trained.item_embeddings, data.interactions(TRAIN))
        standing = None
        if live is not None:
            gone = self._result("snapshot")["gone"]
            figures: Any = (live.manifest.gate or {}).get("figures") or {}
            shares = teacher_shares({name: float(value) for name, value in figures.items()})
            dropped = read_dropped(self._dataset_folder)
            standing = champion(
                live, data, gone["forgotten"], gone["retired"], shares, dropped, gone["forgotten_since"]
            )
        judged = Challenger(today, candidate.teachers, self._index_recall(trained))
        verdict = judge(judged, standing, data, holdout, self._settings.gate)
        return verdict.as_dict()

    def _verdict(self) -> Result:
        verdict = self._result("gate")
        if verdict["verdict"] != "promoted":
            undecided = "undecided, so the champion stays: " if verdict["verdict"] == "undecided" else ""
            raise EndedError(Outcome.REFUSED, undecided + "; ".join(verdict["reasons"]))
        if self._dry_run:
            raise EndedError(Outcome.PROMOTED, "would be promoted; a dry run publishes nothing")
        return {}

    def _publish(self) -> Result:
        version = self._published(self.journal.name)
        if version is None:
            training, gate = self._result("train"), self._result("gate")
            night = {name: training[name] for name in ("warm_from", "nights_warm")} | {"run": self.journal.name}
            dataset, judged = self._dataset(), Candidate.load(self._candidate_file).trained
            recipe = Recipe.model_validate(training["recipe"])
            everything, trained = fold_in_held_out(dataset, judged)
            version = publish(
                self._places.store,
                everything,
                recipe,
                self._settings.train.seed,
                trained,
                activate=False,
                gate={**{name: value for name, value in gate.items() if name not in COST}, "night": night},
                forgotten_until=datetime.fromisoformat(self._result("snapshot")["forgotten_until"]),
                index=self._index(),
                tower=item_tower(dataset, recipe, judged),
            )
        warm = self._places.own / "warm"
        warm.mkdir(exist_ok=True)
        with durable.replacing(warm / f"{version}.pt") as file:
            file.write(self._warm_file.read_bytes())
        return {"version": version}

    def _forget(self) -> Result:
        """Put in the champion's place what it is without who was forgotten since; whatever else is live stays."""
        live, until = self._champion(), datetime.now(UTC)
        users = [] if live is None else self._still_known(live)
        if live is None or not 0 < len(users) < len(live.users):
            return {"users": 0}
        version = self._published(self.journal.name)
        if version is None:
            gate = live.manifest.gate or {}
            night: Any = gate.get("night") or {}
            told = {**gate, "night": {**night, "run": self.journal.name}}
            version = publish_without(self._places.store, live, users, until, told)
        warm = self._places.own / "warm"
        if (path := warm / f"{live.manifest.version}.pt").exists():
            WarmStart.load(path).without(users).save(warm / f"{version}.pt")
        with suppress(EndedError):
            self._handover.activate(version)
        return {"users": len(users), "without": version}

    def _still_known(self, live: Artifact) -> list[str]:
        """Users that a model knows and that were forgotten since, so that nobody uses what it knows of them."""
        with self._open_state() as state:
            forgotten = dict(patiently(lambda: list(state.forgotten())))
        forgotten = tombstones.among(self._places.own, live.users) | forgotten
        since = forgotten_until(live)
        later = [user for user, at in forgotten.items() if since is None or at > since]
        return [user for user in later if live.users.dense(user) is not None]

    def _prune(self) -> Result:
        let_go = self._handover.let_go_of_live_items()
        removed = artifact.prune(self._places.store, self._settings.keep)
        if self._places.models_url is not None:
            self._prune_object_store(self._places.models_url)
        for path in (self._places.own / "warm").glob("*.pt"):
            if not (self._places.store / path.stem).exists():
                path.unlink()
        return {"removed": removed, "let_go": let_go}

    def _prune_object_store(self, url: str) -> None:
        """Whoever may not remove there has a night that went well all the same, and a next one."""
        from shared.object_store import ObjectStore

        try:
            ObjectStore(url, self._places.store).prune(self._settings.keep)
        except UserError as error:
            _log.warning("old versions stay in the object store: %s", error)

    # What the steps need

    @property
    def _dataset_folder(self) -> Path:
        return self.journal.folder / "dataset"

    @property
    def _index_folder(self) -> Path:
        return self.journal.folder / "index"

    @property
    def _candidate_file(self) -> Path:
        return self.journal.folder / "candidate.npz"

    @property
    def _warm_file(self) -> Path:
        return self.journal.folder / "warm.pt"

    def _result(self, step: str) -> Result:
        return self.journal.steps[step]

    @property
    def _version(self) -> str:
        return str(self._result("publish")["version"])

    def _dataset(self) -> Dataset:
        return load_dataset(self._dataset_folder, SplitSpec("given"))

    def _champion(self) -> Artifact | None:
        version = self.journal.identity["champion"]
        return None if version is None else artifact.load(self._places.store, version)

    def _nights_warm(self) -> int:
        live = self._champion()
        night: Any = {} if live is None or live.manifest.gate is None else live.manifest.gate.get("night") or {}
        return int(night.get("nights_warm", 0))

    def _warm_start(self, data: Dataset) -> tuple[str | None, WarmStart | None]:
        """The live model's weights, unless tonight is the night to begin from scratch.

        Who was forgotten since its training and came back begins anew: the service trusts tonight's model about them.
        """
        path = self._warm_file_to_begin_from
        if path is None:
            return None, None
        warm = WarmStart.load(path).without(self._result("snapshot")["gone"]["forgotten_since"])
        chosen = set(data.modalities if self._recipe.modalities is None else self._recipe.modalities)
        return (path.stem, warm) if warm.suits(data, self._recipe.width, chosen) is None else (None, None)

    @property
    def _warm_file_to_begin_from(self) -> Path | None:
        live = self.journal.identity["champion"]
        path = self._places.own / "warm" / f"{live}.pt"
        if live is None or not path.exists() or self._nights_warm() + 1 >= self._settings.train.full_every:
            return None
        return path

    def _published(self, night: str) -> str | None:
        """The version that this night published already, if it did."""
        for path in sorted(self._places.store.glob("*/manifest.json")):
            if path.parent.name.startswith("."):
                continue
            try:
                gate = json.loads(path.read_bytes())["gate"] or {}
            except (OSError, ValueError, KeyError):
                continue
            if gate.get("night", {}).get("run") == night:
                return path.parent.name
        return None

    def _listener(self) -> Listener:
        told = self._watcher.listener

        def epoch(record: EpochRecord, progress: Progress) -> None:
            told.epoch(record, progress)
            self._require_budget("train")

        return Listener(stage=told.stage, step=told.step, epoch=epoch)

    def _may_train_on(self) -> bool:
        return time.monotonic() - self._began < TRAINING_SHARE * 60 * self._settings.minutes

    def _require_budget(self, step: str) -> None:
        most = self._settings.memory_mb
        if most is not None and (used := own_memory_mb(peak=True)) > most:
            raise UserError(f"{step}: {used:.0f} MB were used, the budget is {most:.0f}")
        if time.monotonic() - self._began > 60 * self._settings.minutes:
            raise OutOfTimeError(f"{step}: the night took longer than its {self._settings.minutes:g} minutes")


def _is_torch_out_of_memory(error: Exception) -> bool:
    """Torch has an exception of its own for a GPU's memory, and none for the CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and re.search("(can't allocate|not enough) memory", str(error)) is not None
    )


def alone(places: Places) -> AbstractContextManager[None]:
    """Hold the job's lock, which goes with the process that holds it.

    Raises:
        BlockingIOError: another night is going on.
        UserError: the night's folder cannot be made.
    """
    try:
        places.own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{places.own}: cannot be made ({error.strerror}); give another --models") from error
    return durable.exclusive(places.own / "lock", wait=False)
