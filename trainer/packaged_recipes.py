"""The recipes that come with the trainer; this alone needs no torch, so that a command can name them in its help."""

from importlib import resources
from pathlib import Path

RECIPES = resources.files("trainer") / "recipes"


def packaged_recipes() -> list[str]:
    """Names of recipes that need no path."""
    return sorted(Path(entry.name).stem for entry in RECIPES.iterdir() if entry.name.endswith(".yaml"))
