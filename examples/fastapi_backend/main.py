"""A FastAPI application with a broker beside it: the application makes tokens, answers questions, publishes.

    pip install fastapi uvicorn joserfc httpx
    uvicorn main:api --port 3001              # in this folder
    broker --config config.json               # in another terminal

Then ask for a token (a real application would look at its login first), connect with it, report something to the
backend by RPC, and hear what it publishes:

    curl -X POST localhost:3001/token/ada
    python listen.py ada "all is well"
"""

import os
import time
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException
from joserfc import jwt
from joserfc.jwk import OctKey
from pydantic import BaseModel

SECRET = os.environ.get("BROKER_SECRET", "change me, at both ends")
API_KEY = os.environ.get("BROKER_API_KEY", "change me as well")
BROKER = os.environ.get("BROKER_URL", "http://127.0.0.1:8000")

MEMBERS = {"red": {"ada", "grace"}, "blue": {"grace"}}

api = FastAPI()


@api.post("/token/{user}")
def token(user: str) -> dict[str, str]:
    if not any(user in members for members in MEMBERS.values()):
        raise HTTPException(404, "nobody of that name")
    claims = {"sub": user, "exp": int(time.time()) + 3600, "info": {"name": user.title()}}
    return {"token": jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))}


class Question(BaseModel):
    """What every question of the broker says of the client. It has more fields: these are the ones used here."""

    client: str
    user: str = ""
    channel: str = ""
    method: str = ""
    data: Any = None


@api.post("/broker/subscribe")
def subscribe(question: Question) -> dict[str, Any]:
    team = question.channel.partition(":")[2]
    if question.user not in MEMBERS.get(team, set()):
        return {"error": {"code": 403, "message": "not a member"}}
    return {"result": {"info": {"team": team}}}


@api.post("/broker/rpc")
async def rpc(question: Question) -> dict[str, Any]:
    if question.method != "report":
        return {"error": {"code": 404, "message": "no such method"}}
    await publish("team:red", {"report": question.data, "from": question.user})
    return {"result": {"data": {"thanks": question.user}}}


async def publish(channel: str, data: Any) -> None:
    async with httpx.AsyncClient(headers={"X-API-Key": API_KEY}) as client:
        answer = await client.post(f"{BROKER}/api/publish", json={"channel": channel, "data": data})
        answer.raise_for_status()
