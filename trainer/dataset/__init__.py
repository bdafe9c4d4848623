"""What a user brings: a directory of interactions, items and features, read, checked and split."""

from trainer.dataset.dataset import Dataset, load_dataset
from trainer.dataset.features import Modality
from trainer.dataset.findings import Example, Finding, Severity
from trainer.dataset.interactions import brings_split
from trainer.dataset.report import render_report
from trainer.dataset.splits import TEST, TRAIN, VALIDATION, SplitSpec, validate_command
from trainer.dataset.validation import Report, Summary, validate_directory

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Dataset",
    "Example",
    "Finding",
    "Modality",
    "Report",
    "Severity",
    "SplitSpec",
    "Summary",
    "brings_split",
    "load_dataset",
    "render_report",
    "validate_command",
    "validate_directory",
]
