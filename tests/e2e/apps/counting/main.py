"""A workflow whose result shows that each of its steps has had the result of the one before."""

from __future__ import annotations

from fluvial import step, workflow

MODULUS = 2**31 - 1


@step
async def mix(value: int, number: int) -> int:
    return (value * 48_271 + number) % MODULUS


@workflow
async def climb(seed: int, steps: int) -> int:
    value = seed
    for number in range(steps):
        value = await mix(value, number)
    return value
