"""Nothing calls home."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imports(path: Path) -> set[str]:
    """The names of the packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_onnxruntime_is_loaded_in_one_place_alone() -> None:
    loading = [
        path.relative_to(ROOT).as_posix()
        for side in ("shared", "service", "trainer")
        for path in (ROOT / side).rglob("*.py")
        if "onnxruntime" in imports(path)
    ]
    assert loading == ["shared/onnx_runtime.py"]


def test_its_telemetry_is_off_before_it_is_loaded(tmp_path: Path) -> None:
    """The library writes down an id of the device when it means to report; with telemetry off it makes none."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_DATA_HOME": str(home / "data")}
    code = "from shared.onnx_runtime import onnxruntime as o; print(len(o.get_available_providers()) > 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "True", done.stderr
    assert "telemetry" not in done.stderr.lower()
    assert list(home.rglob("*")) == []
