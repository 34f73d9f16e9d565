"""What the tests share: the repository's models, a key, small inputs."""

import os
from pathlib import Path

import numpy as np
import pytest

import gelu

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def onnx_folder(repository):
    return repository / "tests" / "onnx" / "models"


@pytest.fixture(scope="session")
def command(repository):
    """The command `gelu`, whose results are Rust's own."""
    path = Path(os.environ.get("GELU_BIN", repository / "target" / "release" / "gelu"))
    assert path.exists(), f"{path}: build it by `cargo build --release`, or name it by GELU_BIN"
    return path


@pytest.fixture(scope="session")
def lenet5(repository):
    return gelu.load(repository / "models" / "lenet5.safetensors")


@pytest.fixture(scope="session")
def key():
    return gelu.SecretKey.generate(1024)


@pytest.fixture(scope="session")
def pixels():
    """Five images as bytes, [5, 28, 28]."""
    return np.random.default_rng(7).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="session")
def images(pixels):
    """The same as a network takes them, [5, 1, 28, 28]."""
    return pixels[:, None].astype(np.float32) / np.float32(255)


@pytest.fixture(scope="session")
def small():
    """A network of 16 inputs and 3 outputs, with inputs for it."""
    x = np.random.default_rng(1).standard_normal((12, 16)).astype(np.float32)
    return gelu.Network.named("mlp:8", input_shape=[16], classes=3, seed=1).calibrated(x), x
