"""What is too much, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from fluvial_invoker.instance.samples import Sample, trouble_of


@pytest.mark.parametrize(
    ("measured", "trouble"),
    [
        ({}, ""),
        ({"lag_seconds": 0.05}, ""),
        ({"lag_seconds": 0.051}, "lag"),
        ({"cpu_share": 0.95, "lag_seconds": 0.02}, "cpu"),
        ({"cpu_share": 0.95, "lag_seconds": 0.005}, ""),  # busy, and nobody waits
        ({"cpu_share": 0.9, "lag_seconds": 0.02}, ""),
        ({"cpu_share": 0.95, "lag_seconds": 0.02, "in_flight": 1}, ""),
        ({"memory_share": 0.85}, ""),
        ({"memory_share": 0.86}, "memory"),
        ({"descriptor_share": 0.91}, "descriptors"),
        ({"waiting_for_thread": 1}, "threads"),
        ({"memory_share": 0.9, "lag_seconds": 0.1}, "lag"),
    ],
)
def test_trouble(measured: dict[str, Any], trouble: str) -> None:
    sample = Sample(**{"in_flight": 2, "limit": 10, **measured})

    assert trouble_of(sample) == trouble


def test_a_frame_carries_whole_numbers() -> None:
    sample = Sample(
        in_flight=2,
        limit=10,
        lag_seconds=0.0123,
        cpu_share=0.5,
        memory_share=0.25,
        descriptor_share=0.125,
        waiting_for_thread=3,
    )

    assert sample.to_fields() == [10, 2, 12300, 500, 250, 125, 3]
