"""Servers on the machines of a Ray cluster: `pip install gelu-net[ray]`.

Ray carries requests and replies and starts what died again; what is computed is the wheel's, as everywhere.
A worker holds the weights and no key. Whoever has the key spreads blocks of inputs over the workers by a
`Pool`, reached in one of two ways:

- `Actor`, in a cluster that the key's owner belongs to. Members of a Ray cluster unpickle what others send,
  and so can run code in each other's processes: join only a cluster that you would trust with the key.
- `Stream`, a gRPC stream to Ray Serve, for everybody else. Only bytes come back, and they are checked.

    ray.init()
    links = gelu.ray.start_actors(net, 2)
    y = gelu.ray.Pool(client, links).predict(x)
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import ray

from ._exceptions import DisconnectedError, ServiceError
from ._native import Network, Server, set_num_threads
from ._pool import Link, Pool

if TYPE_CHECKING:
    import grpc

__all__ = ["Actor", "Link", "Pool", "Stream", "add_to_server", "application", "serve", "start_actors"]

_Path: TypeAlias = str | os.PathLike[str]
_Offered: TypeAlias = Literal["hidden", "class", "revealed", "any"]

_SERVICE = "gelu.ray.Sessions"
# What another attempt does not change.
_LASTING = ("NOT_FOUND", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT")
_LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")
_OPTIONS = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]


class _Worker:
    """What a Ray actor runs: a server, under a name that a restarted one does not have."""

    def __init__(self, network: Network | str, mode: _Offered, threads: int) -> None:
        set_num_threads(threads)
        self._server = Server(network, mode=mode)
        self._life = uuid.uuid4().hex

    def life(self) -> tuple[str, str]:
        """Return the name, and the node's."""
        return self._life, ray.get_runtime_context().get_node_id()

    def step(self, life: str, request: bytes) -> bytes:
        """Answer a request of a conversation that began in `life`."""
        if life != self._life:
            raise DisconnectedError("the worker was started again since the conversation began")
        return self._server.step(request)


class Actor:
    """A link to a worker that is a Ray actor. Made by `start_actors`; for one conversation at a time."""

    def __init__(self, handle: Any, weights: Any) -> None:
        # A worker that is started again asks Ray for the weights, which live while someone refers to them.
        self._handle, self._weights = handle, weights
        self._asked: Any = None
        self._life = ""
        self._node: str | None = None

    @property
    def node(self) -> str | None:
        """The Ray node that the worker was last found on; None before it answered."""
        return self._node

    def is_ready(self) -> bool:
        """Return whether the worker answers, after a second at most; Ray may still be starting it."""
        self._asked = self._asked or self._handle.life.remote()
        try:
            self._life, self._node = ray.get(self._asked, timeout=1)
        except ray.exceptions.GetTimeoutError:
            return False
        except ray.exceptions.ActorDiedError as error:
            raise DisconnectedError(f"the worker will not be started again: {error}") from error
        except ray.exceptions.RayActorError:
            self._asked = None
            return False
        self._asked = None
        return True

    def __call__(self, request: bytes) -> bytes:
        """Return the worker's reply. Raises DisconnectedError when it died, or its node."""
        try:
            reply: bytes = ray.get(self._handle.step.remote(self._life, request))
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            raise DisconnectedError(f"the worker is gone: {error}") from error
        return reply


def start_actors(
    network: Network | _Path,
    workers: int,
    *,
    cpus: int = 1,
    mode: _Offered = "hidden",
    in_flight: int = 2,
    options: dict[str, Any] | None = None,
) -> list[Actor]:
    """Start `workers` servers on the cluster that `ray.init` joined, and return links to them.

    The weights of a `network` travel once to each node, through Ray's object store; a path is that of a
    model file on the workers' machines. A worker computes on `cpus` cores, and is started again on another
    node when its own is lost. `in_flight` links lead to each worker, so that it computes for one while
    another's client decrypts and encrypts: the first of each worker, then the second of each. `options` are
    further ones of Ray's actors, such as `{"scheduling_strategy": "SPREAD"}`. The workers live as long as
    the links, or the program.
    """
    weights = ray.put(network) if isinstance(network, Network) else os.fspath(network)
    settings = {"num_cpus": cpus, "max_restarts": -1, "max_concurrency": in_flight, **(options or {})}
    # A request is not Ray's to repeat: the conversation that it belongs to died with the worker.
    worker = ray.remote(_Worker).options(max_task_retries=0, **settings)
    handles = [worker.remote(weights, mode, cpus) for _ in range(workers)]
    return [Actor(handle, weights) for _ in range(in_flight) for handle in handles]


class _Sessions:
    """What a replica of Ray Serve runs: a server, to which each stream is a client's."""

    def __init__(self, network: Network | str, mode: _Offered, threads: int) -> None:
        set_num_threads(threads)
        self._server = Server(network, mode=mode)

    async def Session(self, frames: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Answer the requests of a stream."""
        async for frame in frames:
            yield type(frame)(value=await asyncio.to_thread(self._server.step, frame.value))


def add_to_server(servicer: Any, server: Any) -> None:
    """Add the service to a gRPC server: what Serve's `grpc_servicer_functions` ask for, by the import path.

    The service `gelu.ray.Sessions` has one method, `Session`, a stream in both directions of
    `google.protobuf.BytesValue`: requests and replies of `Server.step`.
    """
    import grpc
    from google.protobuf.wrappers_pb2 import BytesValue

    method = grpc.stream_stream_rpc_method_handler(
        servicer.Session, BytesValue.FromString, BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Session": method}),))


def application(
    network: Network | _Path,
    *,
    replicas: int = 1,
    cpus: int = 1,
    mode: _Offered = "hidden",
    streams: int = 64,
) -> Any:
    """Return a network as an application of Ray Serve, for `ray.serve.run` and Serve's configuration files.

    Each of `replicas` computes on `cpus` cores and has at most `streams` streams. A stream stays on its
    replica.

    Raises ServiceError where Ray is too old for streams in both directions.
    """
    from ray import serve

    if not hasattr(importlib.import_module("ray.serve.grpc_util"), "gRPCInputStream"):
        raise ServiceError(
            f"expected Ray with gRPC streams in both directions, such as 2.60, found {ray.__version__}"
        )
    offered = network if isinstance(network, Network) else os.fspath(network)
    deployment: Any = serve.deployment(
        _Sessions,
        name="gelu",
        num_replicas=replicas,
        max_ongoing_requests=streams,
        ray_actor_options={"num_cpus": cpus},
    )
    return deployment.bind(offered, mode, cpus)


def serve(
    network: Network | _Path,
    *,
    port: int = 9000,
    replicas: int = 1,
    cpus: int = 1,
    mode: _Offered = "hidden",
    streams: int = 64,
    http_port: int = 8000,
    name: str = "gelu",
) -> None:
    """Serve a network to `Stream`s by gRPC at `port` of the cluster's nodes, and return when it is up.

    Serve listens on all addresses and without TLS: between machines put a proxy that ends TLS and checks
    clients' certificates before it, and let nothing else reach the port. `http_port` is Serve's own, for
    its health checks, on this machine only. `name` is the application's, as `Stream` takes it.
    `ray.serve.shutdown()` ends it.
    """
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    ray_serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=http_port),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[f"{__name__}.{add_to_server.__name__}"]),
    )
    app = application(network, replicas=replicas, cpus=cpus, mode=mode, streams=streams)
    ray_serve.run(app, name=name, route_prefix=f"/{name}")


class Stream:
    """A link to a server of `serve`: a gRPC stream, which stays on one replica.

    For one conversation at a time. `address` is "HOST:PORT". `credentials` (`grpc.ssl_channel_credentials`)
    are for the TLS of the proxy before Serve; without them both sides must be on one machine. A stream that
    broke is opened anew by the next conversation, on any replica. It needs no Ray cluster on this side.
    """

    def __init__(
        self, address: str, *, credentials: grpc.ChannelCredentials | None = None, application: str = "gelu"
    ) -> None:
        import grpc

        if credentials is None and not address.startswith(_LOOPBACK):
            raise ServiceError(f"{address}: expected TLS to another machine: credentials=")
        if credentials is None:
            self._channel: Any = grpc.insecure_channel(address, _OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, _OPTIONS)
        self._application = application
        self._requests: queue.SimpleQueue[Any] | None = None
        self._replies: Any = None

    def is_ready(self) -> bool:
        """Return whether the machine answers, after a second at most, and open a stream if there is none."""
        import grpc

        if self._requests is not None:
            return True
        try:
            grpc.channel_ready_future(self._channel).result(timeout=1)
        except grpc.FutureTimeoutError:
            return False
        self._open()
        return True

    def _open(self) -> None:
        from google.protobuf.wrappers_pb2 import BytesValue

        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        frames: Iterator[Any] = iter(requests.get, None)
        method = self._channel.stream_stream(
            f"/{_SERVICE}/Session", BytesValue.SerializeToString, BytesValue.FromString
        )
        self._requests, self._replies = (
            requests,
            method(frames, metadata=[("application", self._application)]),
        )

    def __call__(self, request: bytes) -> bytes:
        """Return the server's reply. Raises DisconnectedError when the stream broke."""
        import grpc
        from google.protobuf.wrappers_pb2 import BytesValue

        if self._requests is None:
            self._open()
        assert self._requests is not None
        self._requests.put(BytesValue(value=request))
        try:
            reply: bytes = next(self._replies).value
        except StopIteration as error:
            self._end()
            raise DisconnectedError("the stream broke: the server has ended it") from error
        except grpc.RpcError as error:
            self._end()
            code, said = error.code(), error.details()
            if code.name in _LASTING:
                raise ServiceError(f"{code.name}: {said}; expected gelu.ray.serve at that address") from error
            raise DisconnectedError(f"the stream broke: {said}") from error
        return reply

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.put(None)
        self._requests = None

    def close(self) -> None:
        """End the stream and its connection."""
        if self._requests is not None:
            self._end()
            # Serve counts a stream that is cut off as an error.
            until = time.monotonic() + 1
            while self._replies.is_active() and time.monotonic() < until:
                time.sleep(0.01)
        self._channel.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
