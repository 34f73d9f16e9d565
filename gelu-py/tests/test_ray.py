"""Servers on a Ray cluster, where `ray` is installed: `pip install gelu-net[ray]`."""

import os
import pickle
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

import gelu

# Before ray is imported: no telemetry, no token between processes of one machine, patience on a busy one.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_raylet_start_wait_time_s="120")
pytest.importorskip("ray", reason="ray is not installed: pip install gelu-net[ray]")

import ray
from ray.cluster_utils import Cluster

import gelu.ray

# Ray's own.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster():
    """A head without cores to give away, and two nodes of one."""
    small = {"object_store_memory": 100_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small}
    )
    cluster.doomed = [cluster.add_node(num_cpus=1, **small) for _ in range(2)][-1]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def client(lenet5, key):
    return gelu.Client(lenet5.client_spec(), key, batch=4)


@pytest.fixture(scope="module")
def many():
    return np.random.default_rng(5).random((60, 1, 28, 28), dtype=np.float32)


def test_ray_is_imported_on_request_only():
    script = "import gelu, sys; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


class Fragile:
    """A link to a server in this process, which is lost at some requests and back at the next question."""

    def __init__(self, lenet5, *losses, comes_back=True):
        self.lenet5, self.losses, self.comes_back = lenet5, set(losses), comes_back
        self.requests, self.server = 0, None

    def is_ready(self):
        if self.server is None and self.requests and not self.comes_back:
            return False
        self.server = self.server or gelu.Server(self.lenet5, mode="revealed")
        return True

    def __call__(self, request):
        self.requests += 1
        if self.requests in self.losses or None in self.losses:
            self.server = None
            raise gelu.DisconnectedError("lost")
        return self.server.step(request)


def test_blocks_of_lost_servers_are_repeated(lenet5, client, many):
    heard = []
    links = [Fragile(lenet5, 3, 9), Fragile(lenet5, 8, comes_back=False)]
    pool = gelu.ray.Pool(client, links, block=8, mode="revealed")
    outputs = pool.predict(many, progress=lambda *said: heard.append(said))
    assert np.array_equal(outputs, lenet5.simulate(many))
    assert pool.repeated >= 2
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert heard[-1] == (60, 60)
    assert np.array_equal(pool.predict_classes(many[:3]), lenet5.run_clear(many[:3]).classes)


def test_a_pool_ends_when_it_cannot_go_on(lenet5, client, many):
    def pool(*links, **settings):
        return gelu.ray.Pool(client, links, block=8, mode="revealed", **settings)

    with pytest.raises(gelu.ServiceError, match="8 of 8 blocks are left"):
        pool(Fragile(lenet5, 1, comes_back=False), patience=0.5).predict(many)
    with pytest.raises(gelu.DisconnectedError, match="lost"):
        pool(Fragile(lenet5, None)).predict(many)
    with pytest.raises(gelu.TensorError):
        pool(Fragile(lenet5)).predict(many[:, :, :5])
    with pytest.raises(ZeroDivisionError):
        pool(Fragile(lenet5)).predict(many, progress=lambda done, of: 1 / 0)
    assert pool(Fragile(lenet5)).predict(many[:1]).shape == (1, 10)
    with pytest.raises(ValueError, match="links"):
        pool()
    with pytest.raises(ValueError, match="block"):
        gelu.ray.Pool(client, [Fragile(lenet5)], block=0)


def test_no_key_gets_into_the_cluster(cluster, client, key):
    for secret in (key, client):
        with pytest.raises((TypeError, pickle.PicklingError, gelu.SecretKeyError)):
            ray.put(secret)


def test_a_worker_that_cannot_start_says_why(cluster, client, many, tmp_path):
    links = gelu.ray.start_actors(tmp_path / "nowhere.safetensors", 1, options={"num_cpus": 0})
    with pytest.raises(gelu.ServiceError, match="start workers") as raised:
        gelu.ray.Pool(client, links).predict(many[:1])
    assert "nowhere.safetensors" in str(raised.value.__cause__)


def test_streams_stay_on_replicas(cluster, lenet5, client, many):
    from ray import serve

    def free():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    port = free()
    gelu.ray.serve(lenet5, port=port, replicas=2, mode="any", http_port=free())
    streams = [gelu.ray.Stream(f"127.0.0.1:{port}") for _ in range(3)]
    try:
        found = client.connect(streams[0]).predict(many[:5])
        assert np.array_equal(found, lenet5.simulate(many[:5], hidden=True))
        # A conversation takes several requests: another replica would not know it.
        pool = gelu.ray.Pool(client, streams, block=8, mode="revealed")
        assert np.array_equal(pool.predict(many), lenet5.simulate(many))
        assert pool.repeated == 0
        # The stream is broken off, and opened again.
        with pytest.raises(gelu.DisconnectedError):
            streams[0](b"no client's")
        assert np.array_equal(pool.predict(many[:9]), lenet5.simulate(many[:9]))
    finally:
        for stream in streams:
            stream.close()
        serve.shutdown()


def test_what_is_no_such_server_is_told(lenet5, client, many):
    with pytest.raises(gelu.ServiceError, match="expected TLS"):
        gelu.ray.Stream("192.0.2.1:9000")
    with (
        gelu.Server(lenet5).serve("127.0.0.1:0") as serving,
        gelu.ray.Stream(serving.address) as stream,
        pytest.raises(gelu.ServiceError, match=r"expected gelu\.ray\.serve"),
    ):
        gelu.ray.Pool(client, [stream]).predict(many[:1])


def test_a_node_dies_in_the_middle(cluster, lenet5, client, many):
    links = gelu.ray.start_actors(lenet5, 2, mode="revealed")
    pool = gelu.ray.Pool(client, links, block=4, mode="revealed")
    x = np.concatenate([many] * 4)
    assert np.array_equal(pool.predict(x), lenet5.simulate(x))
    assert pool.repeated == 0
    assert len({link.node for link in links}) == 2

    is_removed = threading.Event()

    def hear(done, of):
        if done > of / 4 and not is_removed.is_set():
            is_removed.set()
            cluster.remove_node(cluster.doomed, allow_graceful=False)

    assert np.array_equal(pool.predict(x, progress=hear), lenet5.simulate(x))
    assert pool.repeated >= 1
    # A worker without a node waits for one, and then has the weights again.
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    for link in links:
        assert any(link.is_ready() for _ in range(60)), link.node
    assert len({link.node for link in links}) == 2
    assert np.array_equal(pool.predict(many), lenet5.simulate(many))
