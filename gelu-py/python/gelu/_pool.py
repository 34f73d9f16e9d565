"""A client with many servers, whatever carries its requests to them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._exceptions import DisconnectedError, ServiceError
from ._native import Client

if TYPE_CHECKING:
    from ._native import Connection

_Mode: TypeAlias = Literal["hidden", "class", "revealed"]
_Progress: TypeAlias = Callable[[int, int], object]
_Ask: TypeAlias = "Callable[[Connection, NDArray[Any]], NDArray[Any]]"

# How often a block may lose its server: more often is no accident.
_MOST_ATTEMPTS = 5


class Link(Protocol):
    """A way to one server, as `Client.connect` takes it, that can be asked whether the server is there."""

    def __call__(self, request: bytes) -> bytes:
        """Return the reply. Raises DisconnectedError when the server is gone, with its conversations."""
        ...

    def is_ready(self) -> bool:
        """Return whether a conversation can begin. Raises DisconnectedError when none ever will."""
        ...


class _Job:
    """The blocks of one call, and what became of them."""

    def __init__(self, blocks: list[slice], inputs: int, progress: _Progress | None) -> None:
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(blocks)):
            self.waiting.put(index)
        self.blocks, self.inputs, self.progress = blocks, inputs, progress
        self.attempts = [0] * len(blocks)
        self.results: dict[int, NDArray[Any]] = {}
        self.finished: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.is_over = threading.Event()
        self.lost: DisconnectedError | None = None

    def next(self) -> int | None:
        """Wait for a block, which another link's thread may give back; None when the call has ended."""
        while not self.is_over.is_set():
            try:
                return self.waiting.get(timeout=0.05)
            except queue.Empty:
                pass
        return None


class Pool:
    """A client that spreads blocks of inputs over many servers, and repeats a block whose server is lost.

    Each block of `block` inputs is a conversation of its own, in batches as the client makes them: so much is
    computed again when a server is lost. Opening a conversation costs about as much as a few
    inputs: a block should have several batches. `mode` is as for `Client.connect`.
    Without any server for `patience` seconds a call fails.
    """

    def __init__(
        self,
        client: Client,
        links: Sequence[Link],
        *,
        block: int = 256,
        mode: _Mode | None = None,
        patience: float = 60.0,
    ) -> None:
        if block < 1:
            raise ValueError(f"block: expected 1 or more inputs, found {block}")
        if not links:
            raise ValueError("links: expected at least one, found none")
        self._client, self._links = client, list(links)
        self._block, self._mode, self._patience = block, mode, patience
        self._repeated = 0

    def __repr__(self) -> str:
        return f"<gelu.ray.Pool of the data owner: {len(self._links)} links, blocks of {self._block} inputs>"

    @property
    def repeated(self) -> int:
        """How many blocks were begun again so far, since their servers were lost."""
        return self._repeated

    def predict(self, x: ArrayLike, *, progress: _Progress | None = None) -> NDArray[np.float64]:
        """Send inputs through the network on ciphertexts as `Connection.predict` does.

        The outputs are the same, bit for bit, however often a block was repeated. `progress(done, inputs)`
        hears after every block, in this thread.

        Raises what `Connection.predict` raises, and ServiceError when no server is left.
        """
        return self._run(x, lambda connection, block: connection.predict(block), progress)

    def predict_classes(self, x: ArrayLike, *, progress: _Progress | None = None) -> NDArray[np.int64]:
        """Send inputs as `predict` does and return the class of each, of shape [N]."""
        return self._run(x, lambda connection, block: connection.predict_classes(block), progress)

    def _run(
        self,
        x: ArrayLike,
        ask: _Ask,
        progress: _Progress | None,
    ) -> NDArray[Any]:
        x = np.atleast_1d(np.asarray(x))
        inputs = len(x)
        job = _Job(
            [slice(at, at + self._block) for at in range(0, max(inputs, 1), self._block)], inputs, progress
        )
        run = [
            threading.Thread(target=self._work, args=(job, link, x, ask), name="gelu pool", daemon=True)
            for link in self._links
        ]
        for thread in run:
            thread.start()
        try:
            self._collect(job, len(run))
        finally:
            # Those that wait for a server end by themselves.
            job.is_over.set()
        return np.concatenate([job.results[index] for index in range(len(job.blocks))])

    def _collect(self, job: _Job, links: int) -> None:
        """Wait for all blocks, in the caller's thread."""
        done = 0
        while len(job.results) < len(job.blocks) or done < job.inputs:
            found = job.finished.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                links -= 1
                if not links:
                    left = len(job.blocks) - len(job.results)
                    raise ServiceError(
                        f"{left} of {len(job.blocks)} blocks are left: expected a server within "
                        f"{self._patience:g} seconds, found none; start workers and predict again"
                    ) from job.lost
                continue
            done += len(job.results[found])
            if job.progress:
                job.progress(done, job.inputs)

    def _work(
        self,
        job: _Job,
        link: Link,
        x: NDArray[Any],
        ask: _Ask,
    ) -> None:
        """Take blocks, one after another, as long as the link's server is there."""

        def carry(request: bytes) -> bytes:
            if job.is_over.is_set():
                raise DisconnectedError("the call has ended")
            return link(request)

        try:
            connection = self._client.connect(carry, mode=self._mode)
            while self._is_there(job, link):
                index = job.next()
                if index is None:
                    break
                try:
                    job.results[index] = ask(connection, x[job.blocks[index]])
                except DisconnectedError:
                    if job.is_over.is_set():
                        break
                    job.attempts[index] += 1
                    if job.attempts[index] == _MOST_ATTEMPTS:
                        raise
                    self._repeated += 1
                    job.waiting.put(index)
                    continue
                job.finished.put(index)
        except BaseException as error:
            job.finished.put(error)
        else:
            job.finished.put(None)

    def _is_there(self, job: _Job, link: Link) -> bool:
        """Wait for the link's server; returns False when it does not come, or the call has ended."""
        until = time.monotonic() + self._patience
        while not job.is_over.is_set() and time.monotonic() < until:
            try:
                if link.is_ready():
                    return True
            except DisconnectedError as error:
                job.lost = error
                return False
            job.is_over.wait(0.2)
        return False
