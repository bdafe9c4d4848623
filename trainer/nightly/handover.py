"""The end of a night: the new model takes over from the champion, is watched, and gives way again if it is worse."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from shared import artifact
from shared.errors import UserError
from shared.forgotten import trained_until
from shared.state import StateUnavailable
from trainer.nightly import fault
from trainer.nightly.drain import StateOpener, patiently
from trainer.nightly.journal import Journal, Result
from trainer.nightly.outcome import EndedError, Outcome
from trainer.nightly.places import Places
from trainer.nightly.service_watch import Service, Traffic
from trainer.nightly.settings import NightlySettings

USERS_ASKED = 5

_ROLL_BACK = "roll_back"
_SWITCHING, _SWITCHED = "switching", "switched"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handover:
    """From the champion to the night's own version; each step is noted in the journal by the caller.

    Attributes:
        places: where everything is.
        settings: of the job.
        open_state: opens the user state.
        service: the running one; None where there is none to ask.
        journal: of the night.
    """

    places: Places
    settings: NightlySettings
    open_state: StateOpener
    service: Service | None
    journal: Journal

    def require_not_rolled_back(self) -> None:
        """A night after which the champion is live again stays so: it went back itself, or somebody did.

        Raises:
            EndedError: it is.
        """
        if _ROLL_BACK in self.journal.steps:
            raise EndedError(Outcome.ROLLED_BACK, self.journal.steps[_ROLL_BACK]["reason"])
        if self._was_switched() and artifact.current_version(self.places.store) == self._champion:
            live = self._champion or "no model"
            raise EndedError(Outcome.ROLLED_BACK, f"{live} is live again, and stays")

    def activate(self, version: str) -> Result:
        """Make the version the current one, and keep what the service's traffic was like before.

        Raises:
            EndedError: another model than the champion is live by now, or the champion again, and stays.
        """
        noted = self.journal.notes.get(_SWITCHING)
        before = vars(self._traffic(version)) if noted is None else noted["before"]
        self._switch(lambda: self._succeed(version, before), sent_before=version)
        fault.point("activate:switched")
        self.journal.note(_SWITCHED, dict)
        self._announce()
        return {"before": before}

    def confirm(self, version: str) -> Result:
        """Wait until the service answers with the version.

        Raises:
            EndedError: it did not, and the champion is live again.
        """
        if self.service is None:
            return {"asked": False}
        if not self.service.confirm(version, self.settings.confirm_seconds):
            answers = self.service.version() or "nothing"
            self._roll_back(version, f"the service still answers with {answers} and not with {version}")
        return {"asked": True}

    def watch(self, version: str) -> Result:
        """Watch the service for a while.

        Raises:
            EndedError: it got worse, and the champion is live again; or another version was made current, and stays.
        """
        if self.service is None:
            return {"watched": False}
        if artifact.current_version(self.places.store) != version:
            self._roll_back(version, f"{version} is not the current version any more")
        before = Traffic(**self.journal.steps["activate"]["before"])
        worse = self.service.watch(before, self._users_asked(version), self.settings.watch_seconds)
        if worse is not None:
            self._roll_back(version, worse)
        return {"watched": True}

    def let_go_of_live_items(self) -> int:
        """Drop what was put before the live model and the one before it were made, so that a rollback misses nothing.

        What Redis cannot be told of tonight stays until another night.

        Returns:
            How many were dropped.
        """
        try:
            return self._let_go_of_live_items()
        except UserError as error:
            _log.warning("live items stay in Redis: %s", error)
            return 0

    @property
    def _champion(self) -> str | None:
        champion: str | None = self.journal.identity["champion"]
        return champion

    def _users_asked(self, version: str) -> list[str]:
        users = artifact.load(self.places.store, version).users
        return [users.outside(place * len(users) // USERS_ASKED) for place in range(min(USERS_ASKED, len(users)))]

    def _traffic(self, version: str) -> Traffic:
        if self.service is None:
            return Traffic()
        return self.service.traffic() + self.service.ask(self._users_asked(version))

    def _changed_at(self) -> str | None:
        """When the current version was last changed, where the services have it from; None if it never was."""
        if self.places.models_url is not None:
            from shared.object_store import ObjectStore

            return ObjectStore(self.places.models_url, self.places.store).changed_at()
        path = self.places.store / artifact.CURRENT
        return str(path.stat().st_mtime_ns) if path.exists() else None

    def _was_switched(self) -> bool:
        """Whether the version was made live; killed before that was noted, a night knows it by the time of change."""
        if _SWITCHED in self.journal.notes:
            return True
        switching = self.journal.notes.get(_SWITCHING)
        return switching is not None and switching["changed_at"] != self._changed_at()

    def _switch(self, change: Callable[[], object], sent_before: str | None = None) -> None:
        """Change the current version, in the object store too, if there is one."""
        if self.places.models_url is None:
            change()
        else:
            from shared.object_store import ObjectStore

            objects = ObjectStore(self.places.models_url, self.places.store)
            if sent_before is not None:
                objects.send(sent_before)
                objects.push_pictures()
            objects.pull()  # somebody may have made another model live there since the night began
            with objects.held() as push:
                change()
                push()

    def _announce(self) -> None:
        """Tell the services by Redis; whoever does not hear of it looks by itself."""
        with suppress(StateUnavailable, UserError), self.open_state() as state:
            state.announce()

    def _let_go_of_live_items(self) -> int:
        models = [artifact.load(self.places.store, each) for each in artifact.activations(self.places.store)[:2]]
        times = [at for at in map(trained_until, models) if at is not None]
        if len(times) < 2:
            return 0
        with self.open_state() as state:
            changes = patiently(state.live_items.changes)
            known = [each for each in changes if all(model.items.dense(each) is not None for model in models)]
            return patiently(lambda: state.live_items.drop(known, min(times)))

    def _succeed(self, version: str, before: Result) -> None:
        self.require_not_rolled_back()
        self.journal.note(_SWITCHING, lambda: {"before": before, "changed_at": self._changed_at()})
        fault.point("activate:noted")
        if not artifact.activate(self.places.store, version, instead_of=(self._champion, version)):
            live = artifact.current_version(self.places.store) or "no model"
            raise EndedError(
                Outcome.REFUSED,
                f"{live} was made live while the night went on; {version} was not judged against it, and the next is",
            )

    def _roll_back(self, version: str, reason: str) -> NoReturn:
        """Make the champion live again and end the night; done again, it changes nothing."""
        if self._champion is not None:
            self._switch(lambda: self._go_back_from(version))
            self._announce()
        told = self.journal.step(_ROLL_BACK, lambda: {"reason": f"{reason}, {self._what_is_live()}"})
        raise EndedError(Outcome.ROLLED_BACK, told["reason"])

    def _what_is_live(self) -> str:
        live = artifact.current_version(self.places.store)
        if self._champion is None:
            return "and there is no model to go back to"
        return f"so {live} is live again" if live == self._champion else f"and {live} is live"

    def _go_back_from(self, version: str) -> None:
        if artifact.current_version(self.places.store) == version:
            artifact.rollback(self.places.store)
