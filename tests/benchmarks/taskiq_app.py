"""The opponent's worker: one trivial task on taskiq with Redis streams, no durable progress."""

from __future__ import annotations

import os

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

_URL = os.environ["BENCH_REDIS"]
broker = RedisStreamBroker(url=_URL).with_result_backend(
    RedisAsyncResultBackend(redis_url=_URL, result_ex_time=600)
)


@broker.task
async def add_one(value: int) -> int:
    return value + 1
