"""What Ray costs: `python gelu-py/benches/ray_workers.py [ROUNDS]`, where `gelu-net[ray]` is installed.

LeNet-5 with weighted sums revealed, a subgroup key of 2048 bits, batches of 64. In turns: one process with a
server and a client that share two threads; one worker of one core; two. The client's process has two threads
in all cases. Core-seconds are those of this process and all that Ray started.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

# Ray's workers are nice to others otherwise, which on a machine that is not at rest is no comparison.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_worker_niceness="0")

import numpy as np
import ray

import gelu
import gelu.ray

MODEL = Path(__file__).resolve().parents[2] / "models" / "lenet5.safetensors"
IMAGES, BATCH, BLOCK = 1024, 64, 128


def _core_seconds() -> float:
    """Return user and system time so far of this process and everything below it."""
    parents, ticks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= new
    return sum(ticks[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


def _client(network: gelu.Network) -> gelu.Client:
    key = gelu.SecretKey.generate(2048, key_type="subgroup")
    return gelu.Client(network.client_spec(), key, batch=BATCH)


def _block_overhead(rounds: int) -> None:
    """Print what a block takes that computes next to nothing, over Ray and in this process."""
    x = np.ones((1, 4), dtype=np.float32)
    net = gelu.Network.named("mlp:2", input_shape=[4], classes=2).calibrated(x)
    client, server = _client(net), gelu.Server(net, mode="revealed")
    links = {
        "Server.step": server.step,
        "an actor": gelu.ray.start_actors(net, 1, mode="revealed", in_flight=1)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in links}
    for _ in range(20 * rounds):
        for name, link in links.items():
            pool = None
            if isinstance(link, gelu.ray.Actor):
                pool = gelu.ray.Pool(client, [link], block=1, mode="revealed")
            connection = pool or client.connect(link, mode="revealed")
            start = time.perf_counter()
            connection.predict(x)
            times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        print(f"a block of one input through {name}: {1e3 * statistics.median(taken):.2f} ms")


def main() -> None:
    """Print all figures."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    gelu.set_num_threads(2)
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    _block_overhead(rounds)
    net = gelu.load(MODEL)
    x = np.random.default_rng(0).random((IMAGES, 1, 28, 28), dtype=np.float32)
    client, expected = _client(net), net.simulate(x)
    one = client.connect(gelu.Server(net, mode="revealed"))

    links = gelu.ray.start_actors(net, 2, mode="revealed")
    pools = {
        "one process": one,
        "one worker": gelu.ray.Pool(client, links[::2], block=BLOCK, mode="revealed"),
        "two workers": gelu.ray.Pool(client, links, block=BLOCK, mode="revealed"),
    }
    rates: dict[str, list[float]] = {name: [] for name in pools}
    cores: dict[str, list[float]] = {name: [] for name in pools}
    for attempt in range(rounds + 1):
        for name, pool in pools.items():
            before, start = _core_seconds(), time.perf_counter()
            assert np.array_equal(pool.predict(x), expected)
            seconds, used = time.perf_counter() - start, _core_seconds() - before
            # The first round warms up.
            if attempt:
                rates[name].append(IMAGES / seconds)
                cores[name].append(1e3 * used / IMAGES)
                print(f"{name}: {rates[name][-1]:.0f} images a second", file=sys.stderr, flush=True)
    for name in pools:
        ratios = [a / b for a, b in zip(rates[name], rates["one process"], strict=True)]
        print(
            f"{name}: {statistics.median(rates[name]):.0f} images a second, "
            f"{statistics.median(cores[name]):.2f} ms of cores an image; "
            f"{statistics.median(ratios):.0%} of one process ({min(ratios):.0%} to {max(ratios):.0%})"
        )


if __name__ == "__main__":
    main()
