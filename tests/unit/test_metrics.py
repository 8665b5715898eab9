"""What Prometheus reads: names, kinds, and labels that hold no document, user or tenant."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ydoc_store.metrics import BacklogTotals, Distribution, Metrics
from ydoc_store.rooms.ywebsocket import Y_WEBSOCKET


def samples(metrics: Metrics) -> dict[str, list[Sample]]:
    families = text_string_to_metric_families(metrics.render().decode())
    found: dict[str, list[Sample]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, []).append(sample)
    return found


def used() -> Metrics:
    metrics = Metrics()
    metrics.dialect("y-websocket").connections += 2
    metrics.dialect("y-websocket").accepted += 5
    metrics.rooms = 3
    metrics.held_bytes = {"queued": lambda: 5}
    metrics.commit_seconds.observe(0.004)
    metrics.deliver_seconds.observe(0.1)
    metrics.append_batch_updates.observe(20)
    metrics.backlog = BacklogTotals(rows=7, bytes=900, age_s=1.5, quarantined=1, near_limit=2)
    metrics.vacuum_held_s = 12.0
    metrics.changes_held_s = 3.0
    metrics.closed(1013)
    metrics.closed(3999)
    metrics.ignored("unknown type")
    metrics.limited("connection_messages")
    metrics.hint("sent")
    metrics.compacted("fold", "done")
    metrics.compacted(None, "failed")
    return metrics


def test_every_promised_series_is_there() -> None:
    found = samples(used())
    for name in (
        "ydoc_connections", "ydoc_rooms", "ydoc_updates_total", "ydoc_commit_seconds_bucket",
        "ydoc_deliver_seconds_bucket",
        "ydoc_append_batch_updates_bucket", "ydoc_backlog_rows", "ydoc_backlog_bytes", "ydoc_backlog_age_seconds",
        "ydoc_compactions_total", "ydoc_quarantined_documents", "ydoc_closes_total", "ydoc_documents_near_limit",
        "ydoc_frames_ignored_total", "ydoc_limited_total", "ydoc_read_only", "ydoc_reconnect_loops", "ydoc_hints_total",
        "ydoc_vacuum_held_seconds", "ydoc_changes_held_seconds",
        "ydoc_notification_queue_usage", "ydoc_updates_audited_total",
        "ydoc_held_bytes", "ydoc_known_ranges", "ydoc_tasks", "process_resident_memory_bytes",
    ):  # fmt: skip
        assert name in found, name


def test_before_anybody_came_the_served_dialect_is_told_as_zero() -> None:
    found = samples(Metrics())
    told = {s.labels["dialect"]: s.value for s in found["ydoc_connections"]}
    assert told == {Y_WEBSOCKET.name: 0.0, "hocuspocus": 0.0}
    assert {s.value for s in found["ydoc_updates_total"]} == {0.0}


def test_values_are_those_counted() -> None:
    found = samples(used())
    told = {s.labels["dialect"]: s.value for s in found["ydoc_connections"]}
    assert told == {"y-websocket": 2.0, "hocuspocus": 0.0}
    accepted = {s.labels["dialect"]: s.value for s in found["ydoc_updates_total"] if s.labels["result"] == "accepted"}
    assert accepted == {"y-websocket": 5.0, "hocuspocus": 0.0}
    limited = {s.labels["limit"]: s.value for s in found["ydoc_limited_total"]}
    assert (limited["connection_messages"], limited["address_failures"], len(limited)) == (1.0, 0.0, 6)
    assert found["ydoc_backlog_age_seconds"][0].value == 1.5
    assert {(s.labels["way"], s.labels["result"]) for s in found["ydoc_compactions_total"]} == {
        ("fold", "done"),
        ("none", "failed"),
    }


def test_a_close_code_that_is_nobodys_makes_no_series_of_its_own() -> None:
    metrics = Metrics()
    for code in range(3000, 5000):
        metrics.closed(code)
    codes = {s.labels["code"] for s in samples(metrics)["ydoc_closes_total"]}
    assert codes == {"4400", "4401", "4403", "4404", "4409", "4413", "other"}


def test_no_label_names_a_document_a_user_or_a_tenant() -> None:
    labels = {label for found in samples(used()).values() for sample in found for label in sample.labels}
    assert labels == {"dialect", "result", "le", "way", "code", "reason", "what", "limit"}


def test_a_backlog_that_nobody_has_looked_at_is_not_told_as_zero() -> None:
    assert "ydoc_backlog_rows" not in samples(Metrics())


def test_a_distribution_counts_each_value_into_every_bucket_that_holds_it() -> None:
    distribution = Distribution((1, 2, 5))
    for value in (0, 1, 1.5, 5, 6):
        distribution.observe(value)
    family = distribution.family("batch", "of updates")
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert values == {"1.0": 2, "2.0": 3, "5.0": 4, "+Inf": 5, "batch_count": 5, "batch_sum": 13.5}


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.rooms = 1
    assert samples(other)["ydoc_rooms"][0].value == 0
    assert one.dialect("y-websocket") is one.dialect("y-websocket")
