from __future__ import annotations

import subprocess
import sys
import threading

from tests.support.clock import children


def test_children_are_found_while_threads_come_and_go() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        over = False

        def churn() -> None:
            while not over:
                short = [threading.Thread(target=int) for _ in range(8)]
                for thread in short:
                    thread.start()
                for thread in short:
                    thread.join()

        churner = threading.Thread(target=churn)
        churner.start()
        try:
            assert all(str(child.pid) in {process.name for process in children()} for _ in range(300))
        finally:
            over = True
            churner.join()
            child.kill()
