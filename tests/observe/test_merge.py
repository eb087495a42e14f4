from __future__ import annotations

import json

from prometheus_client.core import Metric

from broker.observe import Counters, Metrics, Read, as_data, from_data, lasting, merged, of_worker, render


def process(clients: int, published: int, seconds: float) -> list[Metric]:
    """What a process tells that has `clients` and has published so often."""
    counters = Counters()
    counters.sent["publication"] = published
    for _ in range(published):
        counters.commands["publish"].add(seconds)
    read = Read(nodes=3, clients=clients, users=clients, subscriptions=0, channels=0, deliveries=0)
    return Metrics(counters, lambda: read, "v1", 1).families()


def values(families: list[Metric]) -> dict[str, float]:
    lines = render(families).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_sums_of_what_is_counted_and_the_highest_of_what_all_say() -> None:
    whole = values(merged([of_worker(process(2, 5, 0.002), 1), of_worker(process(3, 1, 0.2), 2)]))
    assert whole["centrifugo_node_num_clients"] == 5
    assert whole['centrifugo_node_messages_sent_count{channel_namespace="",type="publication"}'] == 6
    assert whole["centrifugo_node_num_nodes"] == 3
    assert whole['centrifugo_node_build{version="v1"}'] == 1
    assert whole["centrifugo_insecure_flags"] == 1
    histogram = "centrifugo_client_command_duration_seconds_histogram"
    publish = 'channel_namespace="",le="{}",method="publish"'
    assert whole[f"{histogram}_bucket{{{publish.format('0.005')}}}"] == 5
    assert whole[f"{histogram}_bucket{{{publish.format('0.25')}}}"] == 6
    assert whole[f"{histogram}_bucket{{{publish.format('+Inf')}}}"] == 6
    assert abs(whole[f'{histogram}_sum{{channel_namespace="",method="publish"}}'] - 0.21) < 1e-9


def test_what_the_system_tells_has_a_label() -> None:
    whole = values(merged([of_worker(process(0, 0, 0), 1), of_worker(process(0, 0, 0), 2)]))
    of_processes = [name for name in whole if name.startswith(("process_", "python_"))]
    assert of_processes
    assert all('worker="1"' in name or 'worker="2"' in name for name in of_processes)


def test_what_has_ended_goes_on_to_count_and_is_not_there_any_more() -> None:
    rest = values(lasting(of_worker(process(2, 5, 0.002), 1)))
    assert rest['centrifugo_node_messages_sent_count{channel_namespace="",type="publication"}'] == 5
    assert "centrifugo_node_num_clients" not in rest
    assert not any(name.startswith(("process_", "python_")) for name in rest)


def test_the_way_through_a_line_changes_nothing() -> None:
    families = process(2, 5, 0.002)
    assert render(from_data(json.loads(json.dumps(as_data(families))))) == render(families)
    assert render(merged([families])) == render(families)
