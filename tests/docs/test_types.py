"""What the guides and examples show has types that a strict checker agrees with, `app.server` among them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "hooks.md").read_text()
EXAMPLES = ("chat/hooks.py", "fastapi_backend/main.py", "fastapi_backend/listen.py", "ai_stream/main.py")
WRONG = """
from broker.hooks import Hooks, RpcEvent, RpcResult

app = Hooks()


@app.on.rpc("sum")
async def of_another_result(event: RpcEvent) -> int:
    return 3


@app.on.rpc("announce")
async def announce(event: RpcEvent) -> RpcResult:
    position = await app.server.publish("news", event.json(), tag={"a": "b"})
    return RpcResult(data=position.offsets)
"""


def test_a_strict_checker_agrees(tmp_path: Path) -> None:
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)):
        (tmp_path / f"of_the_guide_{number}.py").write_text(snippet)
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text((ROOT / "examples" / example).read_text())
    (tmp_path / "wrong.py").write_text(WRONG)
    files = sorted(file.name for file in tmp_path.glob("*.py"))
    cache = ROOT / ".mypy_cache" / "guide"  # of its own: other options than the linter's make each other's worthless
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *files],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    # not of stubs of ours: those of an installed package are nobody's business
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line and line.split(":")[0] in files]
    assert [(line.split(":")[0], line.rsplit("[", 1)[-1]) for line in errors] == [
        ("wrong.py", "type-var]"),
        ("wrong.py", "call-arg]"),
        ("wrong.py", "attr-defined]"),
    ], checked.stdout + checked.stderr
