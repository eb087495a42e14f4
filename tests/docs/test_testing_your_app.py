"""The guide for tests of applications, run as what it says: tests, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tests.support.ports import free_port

GUIDE = Path(__file__).parents[2] / "docs/testing-your-app.md"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_tests_of_the_guide_pass_and_can_fail(tmp_path: Path) -> None:
    config, anywhere, on_trio, _ = PYTHON.findall(GUIDE.read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text(config)
    (tmp_path / "test_anywhere.py").write_text(anywhere)
    (tmp_path / "test_on_trio.py").write_text(on_trio)
    (tmp_path / "test_wrong.py").write_text(on_trio.replace("Ada", "Bob", 1))
    (tmp_path / "test_start.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef broker_config():\n    return {'client': {'nonsense': 1}}\n\n"
        "def test(broker_server):\n    pass\n"
    )
    result = subprocess.run(
        # as users have it: the plugin comes with the package
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
    )
    assert "2 passed, 1 failed, 1 error" in _counts(result.stdout), result.stdout + result.stderr
    assert "client.nonsense: unknown key" in result.stdout


def test_without_pytest_trio_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_on_trio.py").write_text("def test(broker_in_memory):\n    pass\n")
    hidden = "import sys; sys.modules['pytest_trio'] = None; import pytest; sys.exit(pytest.main())"
    result = subprocess.run(
        [sys.executable, "-c", hidden],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-q -p broker.pytest_plugin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
    )
    assert "pip install pytest-trio" in result.stdout, result.stdout + result.stderr


def _counts(output: str) -> str:
    found = {name: re.search(rf"(\d+) {name}", output) for name in ("passed", "failed", "error")}
    return ", ".join(f"{match[1]} {name}" for name, match in found.items() if match)


def test_the_program_of_the_guide(tmp_path: Path) -> None:
    *_, program = PYTHON.findall(GUIDE.read_text())
    port = free_port()
    assert "9000" in program
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("9000", str(port))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("key", ["token", "insecure"])
def test_tokens_need_a_secret(key: str) -> None:
    from broker.testing import running_server

    options = {"client": {"token": {"hmac_secret_key": "s"}} if key == "token" else {}}
    with running_server(options) as server:
        if key == "token":
            assert server.token("42").count(".") == 2
        else:
            with pytest.raises(ValueError, match="hmac_secret_key"):
                server.token("42")
