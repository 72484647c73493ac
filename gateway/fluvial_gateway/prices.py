"""What usage costs: prices as settings, and what the same program costs that always runs.

The defaults are an example, not what anybody is billed. They are what Fluid compute cost at Vercel
in 2026: from $0.128 an hour of active CPU and from $0.0106 a gigabyte-hour of provisioned memory by
its documentation, $0.60 a million invocations by a third party's price list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fluvial.errors import InvalidRequestError

GIGABYTE: Final = 2**30
_HOUR_SECONDS: Final = 3600.0
_MILLION: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In any currency."""

    cpu_hour: float = 0.128
    gigabyte_hour: float = 0.0106
    million_invocations: float = 0.60

    def cost(self, *, cpu_seconds: float, gigabyte_seconds: float, invocations: float) -> Cost:
        """Return what so much costs."""
        return Cost(
            cpu=cpu_seconds / _HOUR_SECONDS * self.cpu_hour,
            memory=gigabyte_seconds / _HOUR_SECONDS * self.gigabyte_hour,
            invocations=invocations / _MILLION * self.million_invocations,
        )

    def always_on(self, *, seconds: float, memory_bytes: int) -> Cost:
        """Return what one process costs that runs all the time: one CPU is reserved for it, and
        its memory; invocations cost nothing."""
        gigabytes = memory_bytes / GIGABYTE
        return self.cost(cpu_seconds=seconds, gigabyte_seconds=seconds * gigabytes, invocations=0.0)

    def to_dict(self) -> dict[str, float]:
        return {
            "cpu_hour": self.cpu_hour,
            "gb_hour": self.gigabyte_hour,
            "million_invocations": self.million_invocations,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An amount of money and what it is made of."""

    cpu: float = 0.0
    memory: float = 0.0
    invocations: float = 0.0

    @property
    def total(self) -> float:
        return self.cpu + self.memory + self.invocations

    def plus(self, other: Cost) -> Cost:
        return Cost(
            cpu=self.cpu + other.cpu,
            memory=self.memory + other.memory,
            invocations=self.invocations + other.invocations,
        )

    def to_dict(self) -> dict[str, float]:
        return {
            "cpu": self.cpu,
            "memory": self.memory,
            "invocations": self.invocations,
            "total": self.total,
        }


def read_prices(environment: Mapping[str, str]) -> Prices:
    """Return the prices that an environment names, the defaults for what it does not.

    Raises:
        InvalidRequestError: a variable is wrong; the message names it.
    """
    default = Prices()
    return Prices(
        cpu_hour=_price(environment, "FLUVIAL_PRICE_CPU_HOUR", default.cpu_hour),
        gigabyte_hour=_price(environment, "FLUVIAL_PRICE_GB_HOUR", default.gigabyte_hour),
        million_invocations=_price(
            environment, "FLUVIAL_PRICE_MILLION_INVOCATIONS", default.million_invocations
        ),
    )


def _price(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InvalidRequestError(f"{name} must be a number that is not negative, got {text!r}")
    return value
