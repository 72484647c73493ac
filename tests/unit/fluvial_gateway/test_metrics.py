from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from fluvial_gateway.crons.deciding import CronObserver
from fluvial_gateway.metrics import MAX_SERIES, Metrics
from fluvial_gateway.observing import DispatchObserver
from fluvial_gateway.pool_contract import HttpObserver, PoolObserver
from fluvial_gateway.streams import StreamObserver


def _told(metrics: Metrics) -> None:
    """Tell everything once, through the protocols that the parts use."""
    pool: PoolObserver = metrics
    pool.cold_start("shop", "zygote", 0.01)
    pool.instances_changed("shop", "ready", 2)
    pool.instances_changed("shop", "ready", -1)
    pool.nacked("shop", "concurrency")
    pool.waiting_changed("shop", 1)
    http: HttpObserver = metrics
    http.http_finished("shop", "ok", 0.02, 1500)
    dispatch: DispatchObserver = metrics
    dispatch.invocation_finished("shop", "step", "ok", 0.5, 2_000_000)
    dispatch.step_finished("shop", "charge", "completed")
    dispatch.step_attempt("shop", "first")
    dispatch.run_finished("shop", "fulfil", "completed")
    dispatch.run_paused("shop", "poison")
    dispatch.run_paused("shop", "")
    dispatch.commit("ok", 0.001)
    dispatch.handoff(0.0001)
    dispatch.replay("not_live", 12)
    streams: StreamObserver = metrics
    streams.stream_appended("shop", "accepted", 3, 120)
    streams.stream_appended("shop", "stale", 1, 40)
    crons: CronObserver = metrics
    crons.cron_ticks("shop", "nightly", "missed", 3)
    crons.cron_started(0.01)
    metrics.store_error("scrape")


def _sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"fluvial_{name}", labels)


def test_everything_that_is_told_is_counted() -> None:
    metrics = Metrics(version="1.2.3")
    _told(metrics)

    assert _sample(metrics, "invocations_total", app="shop", kind="http", outcome="ok") == 1
    cpu = "invocation_active_cpu_seconds_total"
    assert _sample(metrics, cpu, app="shop", kind="step") == 2.0
    assert _sample(metrics, "instances", app="shop", state="ready") == 1
    for code in ("poison", "requested"):
        assert _sample(metrics, "run_pauses_total", app="shop", code=code) == 1
    assert _sample(metrics, "replayed_events_total") == 12
    assert _sample(metrics, "commit_duration_seconds_count") == 1
    assert _sample(metrics, "stream_appends_total", app="shop", outcome="stale") == 1
    assert _sample(metrics, "stream_chunks_total", app="shop") == 3  # not what was refused
    assert _sample(metrics, "stream_bytes_total", app="shop") == 120
    assert _sample(metrics, "cold_starts_total", app="shop", tier="zygote") == 1
    missed = {"app": "shop", "workflow": "nightly", "outcome": "missed"}
    assert _sample(metrics, "cron_ticks_total", **missed) == 3
    assert _sample(metrics, "cron_lateness_seconds_count") == 1


def test_exposition_is_valid_and_every_family_is_documented() -> None:
    metrics = Metrics(version="1.2.3")
    _told(metrics)
    text = metrics.exposition().decode()
    families = list(text_string_to_metric_families(text))
    ours = [family for family in families if family.name.startswith("fluvial_")]

    assert len(ours) == 24
    assert all(family.documentation for family in families)
    for family in ours:
        assert not family.name.endswith(("_ms", "_us", "_milliseconds", "_kib"))
        assert not {"run", "run_id", "invocation", "token"} & set(family.samples[0].labels)


def test_negative_cpu_of_an_instance_cannot_break_a_counter() -> None:
    metrics = Metrics(version="1")
    metrics.http_finished("shop", "ok", 0.1, -5)

    cpu = "invocation_active_cpu_seconds_total"
    assert _sample(metrics, cpu, app="shop", kind="http") == 0


def test_number_of_series_is_bounded() -> None:
    metrics = Metrics(version="1")
    for number in range(MAX_SERIES + 500):
        metrics.step_finished("shop", f"step{number}", "completed")
    text = metrics.exposition().decode()

    assert text.count("fluvial_steps_total{") == MAX_SERIES + 1
    other = _sample(metrics, "steps_total", app="other", step="other", outcome="other")
    assert other == 500


def test_two_gateways_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(version="1"), Metrics(version="1")
    one.commit("ok", 0.1)

    assert _sample(one, "commits_total", answer="ok") == 1
    assert _sample(other, "commits_total", answer="ok") is None


def test_reasons_that_instances_make_up_share_one_label() -> None:
    metrics = Metrics(version="1.2.3")
    for reason in ("link lost: [Errno 104]", "invented 1", "invented 2", "owner_changed"):
        metrics.step_attempt("shop", reason)

    assert _sample(metrics, "step_attempts_total", app="shop", reason="link_lost") == 1
    assert _sample(metrics, "step_attempts_total", app="shop", reason="other") == 2
    assert _sample(metrics, "step_attempts_total", app="shop", reason="owner_changed") == 1
