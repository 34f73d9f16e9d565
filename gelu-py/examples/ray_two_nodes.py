"""Two nodes, one of which dies in the middle: `python gelu-py/examples/ray_two_nodes.py`.

A Ray cluster of two nodes on this machine (`pip install gelu-net[ray]`), a server of LeNet-5 on each, and a
client that spreads 512 images over them in blocks of 32. After a quarter of them one node is removed. Its
blocks are computed again: the outputs are those of an undisturbed run and of the network in the clear, bit
for bit. Ray has something to say of the lost node, too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# No telemetry, and no token between processes of one machine.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import ray
from ray.cluster_utils import Cluster

import gelu
import gelu.ray

MODEL = Path(__file__).resolve().parents[2] / "models" / "lenet5.safetensors"


def main() -> None:
    """Run it."""
    # The client's own node has no cores to give away, so that each of the others gets a worker.
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 200_000_000},
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        net = gelu.load(MODEL)
        links = gelu.ray.start_actors(net, 2, mode="revealed")
        client = gelu.Client(net.client_spec(), gelu.SecretKey.generate(2048, key_type="subgroup"), batch=16)
        pool = gelu.ray.Pool(client, links, block=32, mode="revealed")

        x = np.random.default_rng(0).random((512, 1, 28, 28), dtype=np.float32)
        pool.predict(x[:128])
        print(f"two workers on {len({link.node for link in links})} nodes")
        start = time.perf_counter()
        undisturbed = pool.predict(x)
        print(f"undisturbed: {len(x)} images in {time.perf_counter() - start:.1f} s")

        def hear(done: int, of: int) -> None:
            if done >= of // 4 and len(nodes) == 2:
                print(f"{done} of {of} images: a node is removed")
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        start = time.perf_counter()
        outputs = pool.predict(x, progress=hear)
        print(
            f"disturbed: {len(x)} images in {time.perf_counter() - start:.1f} s, {pool.repeated} blocks again"
        )
        print("same outputs:", np.array_equal(outputs, undisturbed))
        print("those in the clear:", np.array_equal(outputs, net.simulate(x)))

        cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        start = time.perf_counter()
        while not all(link.is_ready() for link in links):
            pass
        print(f"another node is added: both workers are there after {time.perf_counter() - start:.1f} s")
        assert np.array_equal(pool.predict(x), undisturbed)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
