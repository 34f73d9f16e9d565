"""What can go wrong: one class for each part of the library, below GeluError."""

from __future__ import annotations


class GeluError(Exception):
    """Anything that gelu fails with. The message says what was expected, what was found and what to do."""


class TensorError(GeluError, ValueError):
    """Numbers, keys or arrays do not fit together."""


class ModelError(GeluError, ValueError):
    """A network cannot be built, or weights do not fit it."""


class UnsupportedModel(ModelError):
    """An ONNX model cannot be imported.

    `nodes` lists every node that cannot: its name, operator, the reason, and what to do about it.
    """

    def __init__(self, message: str, nodes: list[tuple[str, str, str, str]] | None = None) -> None:
        super().__init__(message)
        self.nodes = list(nodes or [])


class PlanError(GeluError):
    """A network has no plan for a key and a batch, for instance since it was not calibrated."""


class InferenceError(GeluError):
    """A session of private inference ended early, or cannot begin as it was asked for."""


class DisconnectedError(InferenceError, ConnectionError):
    """The other side is gone."""


class TrainingError(GeluError):
    """Training cannot go on, or the data does not fit the network."""


class WireError(GeluError, ValueError):
    """Bytes are no message or no key."""


class FileError(GeluError, OSError):
    """A file cannot be read or written, or is not what it should be."""


class ServiceError(GeluError, ConnectionError):
    """A server cannot be reached, cannot serve, or refuses."""


class SecretKeyError(GeluError):
    """A secret key was wiped, or stayed behind in the process that this one was forked from."""


class ForkError(GeluError, RuntimeError):
    """The process was forked from one in which gelu had begun to compute."""
