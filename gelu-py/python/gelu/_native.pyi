import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeAlias, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._plan import HiddenPlan, Plan

__all__ = [
    "Client",
    "ClientSpec",
    "Connection",
    "Network",
    "Outcome",
    "PrivateTrainer",
    "SecretKey",
    "Server",
    "Serving",
    "Tls",
    "TrainingStep",
    "__version__",
    "_forget_keys",
    "from_onnx",
    "get_num_threads",
    "load",
    "set_num_threads",
]

__version__: str

_Path: TypeAlias = str | os.PathLike[str]
_Mode: TypeAlias = Literal["hidden", "class", "revealed"]
_KeyType: TypeAlias = Literal["djn", "subgroup"]
_Bits: TypeAlias = tuple[int | None, int | None, int | None]
_Prefer: TypeAlias = Literal["balance", "bytes", "time"]

@final
class SecretKey:
    @staticmethod
    def generate(bits: int = 3072, *, key_type: _KeyType = "djn") -> SecretKey: ...
    @staticmethod
    def load(path: _Path) -> SecretKey: ...
    def save(self, path: _Path) -> None: ...
    def save_public(self, path: _Path) -> None: ...
    def wipe(self) -> None: ...
    @property
    def bits(self) -> int: ...
    @property
    def key_type(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def is_wiped(self) -> bool: ...
    def __enter__(self) -> SecretKey: ...
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: dict[int, Any]) -> NoReturn: ...

@final
class Network:
    @staticmethod
    def named(
        name: str,
        *,
        input_shape: Sequence[int] | None = None,
        classes: int = 10,
        batch_norm: bool | None = None,
        seed: int = 0,
    ) -> Network: ...
    @property
    def name(self) -> str: ...
    @property
    def input_shape(self) -> list[int]: ...
    @property
    def outputs(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def is_calibrated(self) -> bool: ...
    @property
    def report(self) -> str: ...
    @overload
    def plan(
        self,
        *,
        batch: int = 1,
        key_bits: int = 3072,
        key_type: _KeyType = "djn",
        prefer: _Prefer = "balance",
        hidden: Literal[False] = False,
    ) -> Plan: ...
    @overload
    def plan(
        self,
        *,
        batch: int = 1,
        key_bits: int = 3072,
        key_type: _KeyType = "djn",
        prefer: _Prefer = "balance",
        hidden: Literal[True],
    ) -> HiddenPlan: ...
    def simulate(self, x: ArrayLike, *, hidden: bool = False) -> NDArray[np.float64]: ...
    def run_clear(self, x: ArrayLike, *, hidden: bool = False) -> Outcome: ...
    def forward(self, x: ArrayLike) -> NDArray[np.float32]: ...
    def calibrated(self, x: ArrayLike) -> Network: ...
    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        weight_bits: int | None = None,
        activation_bits: int | None = None,
        input_bits: int | None = None,
        seed: int = 0,
        progress: Callable[[int, int, float], object] | None = None,
    ) -> Network: ...
    def with_classes(self, classes: Sequence[str]) -> Network: ...
    def save(self, path: _Path) -> None: ...
    def client_spec(self) -> ClientSpec: ...
    def __reduce__(self) -> tuple[Callable[..., Network], tuple[str, bytes, _Bits]]: ...
    @staticmethod
    def _restore(name: str, weights: bytes, bits: _Bits) -> Network: ...

@final
class ClientSpec:
    @staticmethod
    def load(path: _Path) -> ClientSpec: ...
    def save(self, path: _Path) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def input_shape(self) -> list[int]: ...
    @property
    def outputs(self) -> int: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def can_be_hidden(self) -> bool: ...

@final
class Outcome:
    @property
    def outputs(self) -> NDArray[np.float64]: ...
    @property
    def logits(self) -> NDArray[np.float64]: ...
    @property
    def integers(self) -> NDArray[np.int64]: ...
    @property
    def classes(self) -> NDArray[np.int64]: ...
    @property
    def clamped(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def bytes_up(self) -> int: ...
    @property
    def bytes_down(self) -> int: ...

@final
class Tls:
    def __new__(cls, certificate: _Path, key: _Path, authority: _Path) -> Tls: ...

@final
class Server:
    def __new__(
        cls, network: Network | _Path, *, mode: Literal["hidden", "class", "revealed", "any"] = "hidden"
    ) -> Server: ...
    def client_spec(self) -> ClientSpec: ...
    def step(self, request: bytes) -> bytes: ...
    def serve(
        self,
        address: str | None = None,
        *,
        tls: Tls | None = None,
        sessions: int = 64,
        state: _Path | None = None,
        budget: int | None = None,
        metrics: str | None = None,
    ) -> Serving: ...
    @property
    def mode(self) -> str: ...
    @property
    def conversations(self) -> int: ...

@final
class Serving:
    @property
    def address(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def metrics(self) -> str | None: ...
    @property
    def sessions(self) -> int: ...
    def wait(self) -> None: ...
    def stop(self) -> None: ...
    def __enter__(self) -> Serving: ...
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None: ...

@final
class Client:
    def __new__(
        cls, spec: ClientSpec | _Path, key: SecretKey, *, batch: int = 64, prefer: _Prefer = "balance"
    ) -> Client: ...
    def connect(
        self,
        server: str | Server | Callable[[bytes], bytes],
        *,
        tls: Tls | None = None,
        fingerprint: str | None = None,
        mode: _Mode | None = None,
    ) -> Connection: ...
    @property
    def spec(self) -> ClientSpec: ...

@final
class Connection:
    def predict(
        self, x: ArrayLike, *, progress: Callable[[int, int], object] | None = None
    ) -> NDArray[np.float64]: ...
    def predict_classes(
        self, x: ArrayLike, *, progress: Callable[[int, int], object] | None = None
    ) -> NDArray[np.int64]: ...
    def run(self, x: ArrayLike, *, progress: Callable[[int, int], object] | None = None) -> Outcome: ...
    @property
    def mode(self) -> str: ...
    @property
    def fingerprint(self) -> str | None: ...

@final
class TrainingStep:
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def client(self) -> int: ...
    @property
    def turn(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def bytes_up(self) -> int: ...
    @property
    def bytes_down(self) -> int: ...
    @property
    def seconds(self) -> float: ...

@final
class PrivateTrainer:
    def __new__(
        cls,
        network: Network,
        clients: Sequence[tuple[ArrayLike, ArrayLike]],
        *,
        epochs: int = 1,
        batch_size: int = 60,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        key_bits: int = 2048,
        key_type: _KeyType = "djn",
        turn: int | None = None,
        leakage: Literal["paper", "strict", "off"] = "paper",
        seed: int = 0,
    ) -> PrivateTrainer: ...
    @property
    def steps(self) -> int: ...
    def network(self, calibration: ArrayLike) -> Network: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> PrivateTrainer: ...
    def __next__(self) -> TrainingStep: ...

def load(
    path: _Path,
    *,
    calibration: ArrayLike | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
) -> Network: ...
def from_onnx(
    model: bytes | _Path,
    *,
    calibration: ArrayLike | None = None,
    input_shape: Sequence[int] | None = None,
    output: str | None = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    name: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
) -> Network: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
def _forget_keys() -> None: ...
