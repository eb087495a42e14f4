"""One client: gets its token from the application, subscribes to team:red, reports, and prints what comes of it.

python listen.py ada "all is well"
"""

import os
import sys

import httpx
import trio

from broker.client import connect

APP = os.environ.get("APP_URL", "http://127.0.0.1:3001")
BROKER = os.environ.get("BROKER_WEBSOCKET", "ws://127.0.0.1:8000/connection/websocket")


async def main(user: str, report: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{APP}/token/{user}")
        answer.raise_for_status()
    async with connect(BROKER, token=answer.json()["token"]) as client, client.subscribe("team:red") as red:
        await client.rpc("report", report)
        async for publication in red:
            print(publication.data.decode())
            break


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
