"""nginx in front of a daemon, with the configuration that the guide gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

import trio

from tests.support.children import WITH_US
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

GUIDE = Path(__file__).parents[2] / "docs" / "deploy" / "nginx.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MAIN = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log {folder}/access;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
{site}
}}
"""


@final
class Nginx:
    """One process, before one port or before several in turn. `without` are lines that are left out of the guide's
    configuration, as patterns; `more` is added to every location."""

    def __init__(self, folder: Path, target: int | Sequence[int], *without: str, more: str = "") -> None:
        guide = re.search(r"^```nginx\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
        assert guide is not None
        self.port = free_port()
        site = guide[1].replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        ports = [target] if isinstance(target, int) else target
        site = site.replace("server 127.0.0.1:8000;", " ".join(f"server 127.0.0.1:{port};" for port in ports))
        for pattern in without:
            site, count = re.subn(f"(?m)^.*{pattern}.*$\n", "", site)
            assert count
        site = site.replace("proxy_pass ", f"{more}\n        proxy_pass ")
        folder.mkdir()
        config = folder / "nginx.conf"
        config.write_text(MAIN.format(folder=folder, site=site))
        assert NGINX is not None, "install nginx: .ci/debian"
        self._log = (folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [*WITH_US, NGINX, "-p", str(folder), "-c", str(config)], stdin=subprocess.DEVNULL, stderr=self._log
        )

    async def ready(self) -> None:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", self.port)).aclose()
                    return
                except OSError:
                    assert self.process.poll() is None, self.log
                    await trio.sleep(0.01)

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> None:
        self.process.kill()  # SIGTERM would wait for the next event: there is no master process that wakes it
        self.process.wait(10)
        self._log.close()
