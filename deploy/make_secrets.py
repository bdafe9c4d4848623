"""Make what the containers share and nobody else needs to know.

Run by the compose service ``secrets`` as ``python make_secrets.py FOLDER``. Passwords are made once, and stay; to use
one's own, put their files into the volume before, or mount a folder that has them:

    redis-password        of Redis, also for its health checks
    grafana-password      of Grafana's user ``admin``

Made of these anew each time:

    redis-password.conf   ``requirepass ...``, read by Redis
    redis-url             where the service and the retrain job find Redis, with the password
"""

import secrets
import sys
from pathlib import Path
from urllib.parse import quote


def main(folder: Path) -> None:
    """Write them, readable by everybody who may mount the folder."""
    for name in ("redis-password", "grafana-password"):
        if not (folder / name).exists():
            _write(folder / name, secrets.token_urlsafe(32))
    secret = (folder / "redis-password").read_text(encoding="utf-8").strip()
    quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
    made_of_it = {
        "redis-password.conf": f'requirepass "{quoted}"\n',
        "redis-url": f"redis://:{quote(secret, safe='')}@redis:6379/0\n",
    }
    for name, content in made_of_it.items():
        _write(folder / name, content)


def _write(path: Path, content: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(content, encoding="utf-8")
    temporary.chmod(0o444)
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
