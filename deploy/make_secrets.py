"""Make what the containers share and nobody else needs to know, once; what is there already stays.

Run by the compose service ``secrets`` as ``python make_secrets.py FOLDER``. To use secrets of one's own, put the
files into the volume before, or mount a folder that has them:

    redis-password.conf   ``requirepass ...``, read by Redis
    redis-password        the same password, for health checks
    redis-url             where the service and the retrain job find Redis, with the password
    grafana-password      of Grafana's user ``admin``
"""

import secrets
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Write each file that is missing, readable by everybody who may mount the folder."""
    for name in ("redis-password", "grafana-password"):
        if not (folder / name).exists():
            _write(folder / name, secrets.token_urlsafe(32))
    secret = (folder / "redis-password").read_text(encoding="ascii").strip()
    _write(folder / "redis-password.conf", f"requirepass {secret}\n")
    _write(folder / "redis-url", f"redis://:{secret}@redis:6379/0\n")


def _write(path: Path, content: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(content, encoding="ascii")
    temporary.chmod(0o444)
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
