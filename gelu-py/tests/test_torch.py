"""`gelu.compile`, with a stand-in for torch whose exporter writes a model of this repository.

PyTorch wrote that model (tests/onnx/make_models.py); torch itself is too large for these tests.
"""

import sys
import types

import numpy as np
import pytest

import gelu


class LeNet:
    """What a torch module is, as far as `compile` knows."""

    def __init__(self):
        self.training = True

    def eval(self):
        self.training = False
        return self

    def train(self):
        self.training = True
        return self


class Tensor:
    """A tensor that leads to numpy's array, as torch's does."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array


@pytest.fixture
def torch(monkeypatch, onnx_folder):
    calls = []

    def export(model, args, file, **options):
        calls.append(options)
        assert not model.training
        assert isinstance(args, tuple)
        if stand_in.refuses(options):
            raise RuntimeError("no exporter")
        name = "lenet5.dynamo.onnx" if options["dynamo"] else "lenet5.script.onnx"
        file.write((onnx_folder / name).read_bytes())

    stand_in = types.ModuleType("torch")
    stand_in.onnx = types.SimpleNamespace(export=export)
    stand_in.refuses = lambda options: False
    stand_in.calls = calls
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    return stand_in


def test_six_lines_lead_from_a_torch_model_to_an_encrypted_prediction(torch):
    torch_model = LeNet()
    x = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)

    net = gelu.compile(torch_model, Tensor(x[:1]), calibration=Tensor(x))
    server = gelu.Server(net)
    client = gelu.Client(net.client_spec(), gelu.SecretKey.generate(1024))
    y = client.connect(server).predict(x)

    assert np.array_equal(y, net.simulate(x, hidden=True))
    assert net.name == "lenet"
    assert torch_model.training
    assert torch.calls == [{"verbose": False, "dynamo": True, "external_data": False}]


def test_the_old_exporter_steps_in(torch):
    torch.refuses = lambda options: options["dynamo"]
    net = gelu.compile(LeNet(), None, name="digits", weight_bits=6)
    assert net.name == "digits"
    assert [call["dynamo"] for call in torch.calls] == [True, False]


def test_what_torch_says_is_passed_on(torch):
    torch.refuses = lambda options: True
    model = LeNet()
    with pytest.raises(gelu.ModelError, match="RuntimeError: no exporter"):
        gelu.compile(model, None)
    assert model.training


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"gelu-net\[torch\]"):
        gelu.compile(LeNet(), None)
