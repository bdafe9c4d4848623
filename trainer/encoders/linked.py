"""A second folder for a dataset that must not be written to: its files as links, the new features beside them."""

from pathlib import Path

from shared.errors import UserError
from trainer.encoders.features_manifest import ENCODERS


def link_dataset(directory: Path, out: Path, modalities: list[str]) -> None:
    """Make ``out`` a dataset's folder too: links to all that ``directory`` holds, but for what is to be encoded.

    Features that ``out`` has of its own, of an earlier run, stay in the place of the directory's.

    Raises:
        UserError: it cannot be written, or something else is in the way of a link.
    """
    if out.resolve() == directory.resolve():
        return
    modalities = [*modalities, *_encoded_here(out)]
    own = {ENCODERS, *(f"{name}_feat{ending}" for name in modalities for ending in (".npy", ".json"))}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for entry in sorted(directory.iterdir()):
            if entry.name not in own and not entry.name.startswith("."):
                _link(entry.resolve(), out / entry.name)
        (out / ENCODERS).mkdir(exist_ok=True)
        for encoder in sorted(directory.glob(f"{ENCODERS}/*")):
            if encoder.name not in modalities and not encoder.name.startswith("."):
                _link(encoder.resolve(), out / ENCODERS / encoder.name)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another folder with --out") from error


def _encoded_here(out: Path) -> list[str]:
    """The modalities whose features are files of ``out`` itself."""
    return [path.name.removesuffix("_feat.npy") for path in out.glob("*_feat.npy") if not path.is_symlink()]


def _link(target: Path, link: Path) -> None:
    if link.is_symlink():
        if link.readlink() == target:
            return
        link.unlink()
    if link.exists():
        raise UserError(f"{link}: is in the way of a link to {target}; give a new folder with --out")
    link.symlink_to(target)
