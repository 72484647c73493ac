"""A FastAPI app with a model, for cold starts."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Hello(BaseModel):
    message: str


@app.get("/")
async def hello() -> Hello:
    return Hello(message="Hello, World")
