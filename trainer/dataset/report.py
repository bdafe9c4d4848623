"""The validation report for human eyes."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.dataset.findings import Finding, Severity, named
from trainer.dataset.validation import Report, Summary

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}


def render_report(report: Report, console: Console) -> None:
    """Print figures, findings and the verdict."""
    if report.summary:
        console.print(_figures(report.summary, report.directory))
    if report.findings:
        console.print(_faults(report.findings))
    errors = sum(finding.severity is Severity.ERROR for finding in report.findings)
    warnings = len(report.findings) - errors
    verdict = "[bold green]ready to train on[/]" if report.ok else "[bold red]cannot be trained on[/]"
    console.print(f"{escape(report.directory)}: {verdict} (errors: {errors}, warnings: {warnings})")


def _figures(summary: Summary, title: str) -> Table:
    table = Table(title=escape(title), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    sizes = " / ".join(f"{size:,}" for size in summary.split_sizes.values())
    read = ", ".join(theirs if theirs == ours else f"{theirs} ({ours})" for ours, theirs in summary.columns.items())
    below = f"{summary.users_below_core:,} / {summary.items_below_core:,}"
    rows = {
        "columns read": read or "none",
        "columns ignored": named(summary.ignored_columns) or "none",
        "users": f"{summary.users:,}",
        "items": f"{summary.items:,}",
        "items without interactions": f"{summary.cold_items:,}",
        "interactions": f"{summary.interactions:,}",
        "density": f"{summary.density:.4%}",
        f"{' / '.join(summary.split_sizes)} ({summary.split} split)": sizes,
        f"users / items below {summary.core} interactions": below,
        f"{summary.core}-core users / items / interactions": (
            f"{summary.core_users:,} / {summary.core_items:,} / {summary.core_interactions:,}"
        ),
    } | {f"items with {name}": f"{percentage:.1f}%" for name, percentage in summary.coverage.items()}
    if summary.different_weights > 1:
        rows["different weights"] = f"{summary.different_weights:,}, used with draw_by_weight=true alone"
    for name, value in rows.items():
        table.add_row(escape(name), escape(value))
    return table


def _faults(findings: tuple[Finding, ...]) -> Table:
    table = Table(show_lines=True)
    for heading in ("", "code", "file", "what and how to mend it", "where"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.severity]
        table.add_row(
            f"[{style}]{finding.severity.value}[/]",
            finding.code,
            escape(finding.file),
            escape(finding.message),
            escape("\n".join(map(str, finding.examples))),
        )
    return table
