"""What is wrong with a dataset directory: single findings, and the list that the readers add to."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

MAX_EXAMPLES = 5
MAX_NAMES = 8
MAX_LENGTH = 80


class Severity(StrEnum):
    """An error keeps a directory from being trained on; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


def shorten(text: str) -> str:
    """At most ``MAX_LENGTH`` characters, so that no cell of a file floods a message."""
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def named(names: Iterable[str]) -> str:
    """The first few column names, quoted, for a message."""
    return ", ".join(shorten(repr(name)) for name in islice(names, MAX_NAMES))


@dataclass(frozen=True)
class Example:
    """One place of a finding.

    Attributes:
        row: counted as a spreadsheet does (the header is row 1) in CSV, TSV and JSONL; from 0 in Parquet and
            arrays; None where a finding is about no single row.
        value: what stands there.
    """

    row: int | None
    value: str

    def __str__(self) -> str:
        return self.value if self.row is None else f"row {self.row}: {self.value}"


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one file.

    Attributes:
        message: what is wrong and how to mend it.
        count: how often it occurs.
        examples: the first few places.
    """

    severity: Severity
    code: str
    file: str
    message: str
    count: int = 1
    examples: tuple[Example, ...] = ()

    def __str__(self) -> str:
        places = "; ".join(map(str, self.examples))
        return f"{self.file}: {self.message}" + (f" [{places}]" if places else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {
            "severity": self.severity.value,
            "examples": [asdict(e) for e in self.examples],
        }


class UnreadableError(Exception):
    """A file that gives no contents at all; a reader turns it into a finding."""

    def __init__(self, code: str, message: str, row: int | None = None, value: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.examples = () if row is None else (Example(row, value),)


@dataclass
class Findings:
    """The findings so far, in the order in which they were met."""

    found: list[Finding] = field(default_factory=list)

    def error(self, code: str, file: str, message: str, count: int = 1, examples: Iterable[Example] = ()) -> None:
        """Add a fault that makes the directory unusable."""
        self._add(Severity.ERROR, code, file, message, count, examples)

    def warning(self, code: str, file: str, message: str, count: int = 1, examples: Iterable[Example] = ()) -> None:
        """Add a fault that training survives."""
        self._add(Severity.WARNING, code, file, message, count, examples)

    def unreadable(self, file: str, fault: UnreadableError) -> None:
        """Add a file that could not be read."""
        self.error(fault.code, file, str(fault), examples=fault.examples)

    @property
    def errors(self) -> list[Finding]:
        """The errors alone."""
        return [finding for finding in self.found if finding.severity is Severity.ERROR]

    def _add(
        self, severity: Severity, code: str, file: str, message: str, count: int, examples: Iterable[Example]
    ) -> None:
        first = tuple(Example(each.row, shorten(each.value)) for each in islice(examples, MAX_EXAMPLES))
        self.found.append(Finding(severity, code, file, message, int(count), first))
