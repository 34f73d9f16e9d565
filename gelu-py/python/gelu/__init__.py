"""Convolutional networks on encrypted data.

A client has inputs and a secret key, a server has a network. The server computes every linear layer on
Paillier ciphertexts that it cannot read; the client decrypts the sums, applies the exact activation and
encrypts again. What comes out is, bit for bit, what the same network gives in the clear on integers:

    import gelu
    net = gelu.compile(torch_model, example_input, calibration=x)
    server = gelu.Server(net)
    client = gelu.Client(net.client_spec(), gelu.SecretKey.generate(2048))
    y = client.connect(server).predict(x)

Arrays are numpy's: float32 or float64 (which is rounded to float32) of shape [N, C, H, W] or [N, F] go in,
and float64 of shape [N, outputs] comes out.
"""

import os as _os

from ._exceptions import (
    DisconnectedError,
    FileError,
    ForkError,
    GeluError,
    InferenceError,
    ModelError,
    PlanError,
    SecretKeyError,
    ServiceError,
    TensorError,
    TrainingError,
    UnsupportedModel,
    WireError,
)
from ._native import (
    Client,
    ClientSpec,
    Connection,
    Network,
    Outcome,
    PrivateTrainer,
    SecretKey,
    Server,
    Serving,
    Tls,
    TrainingStep,
    __version__,
    _forget_keys,
    from_onnx,
    get_num_threads,
    load,
    set_num_threads,
)
from ._plan import HiddenPlan, Plan
from ._torch import compile

if hasattr(_os, "register_at_fork"):
    # Secret keys stay in the process that made them.
    _os.register_at_fork(after_in_child=_forget_keys)

__all__ = [
    "Client",
    "ClientSpec",
    "Connection",
    "DisconnectedError",
    "FileError",
    "ForkError",
    "GeluError",
    "HiddenPlan",
    "InferenceError",
    "ModelError",
    "Network",
    "Outcome",
    "Plan",
    "PlanError",
    "PrivateTrainer",
    "SecretKey",
    "SecretKeyError",
    "Server",
    "ServiceError",
    "Serving",
    "TensorError",
    "Tls",
    "TrainingError",
    "TrainingStep",
    "UnsupportedModel",
    "WireError",
    "__version__",
    "compile",
    "from_onnx",
    "get_num_threads",
    "load",
    "set_num_threads",
]
