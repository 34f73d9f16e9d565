"""Private training as an iterator of steps."""

import subprocess
import sys

import numpy as np
import pytest

import gelu


def _clients(seed=0, each=30):
    rng = np.random.default_rng(seed)
    clients = []
    for _ in range(2):
        x = rng.standard_normal((each, 4)).astype(np.float32)
        clients.append((x, (x[:, 0] > x[:, 1]).astype(np.int64)))
    return clients


def _trainer(**options):
    network = gelu.Network.named("mlp:4", input_shape=[4], classes=2, seed=3)
    settings = {
        "epochs": 4,
        "batch_size": 10,
        "learning_rate": 0.2,
        "key_bits": 1024,
        "turn": 3,
        "leakage": "off",
    }
    return gelu.PrivateTrainer(network, _clients(), **{**settings, **options})


def test_training_is_an_iterator_of_steps():
    trainer = _trainer()
    assert "2 clients" in repr(trainer)
    steps = list(trainer)
    assert len(steps) == len(trainer) == trainer.steps == 24
    assert [step.step for step in steps] == list(range(1, 25))
    assert [step.client for step in steps] == [turn % 2 for turn in range(8) for _ in range(3)]
    assert {step.inputs for step in steps} == {10}
    assert all(step.bytes_up > 1000 and step.bytes_down > 1000 and step.seconds > 0 for step in steps)
    assert np.mean([step.loss for step in steps[-6:]]) < np.mean([step.loss for step in steps[:6]])
    assert "client" in repr(steps[0])
    x, y = _clients(seed=9, each=100)[0]
    net = trainer.network(x)
    assert (net.simulate(x).argmax(axis=1) == y).mean() > 0.8
    assert next(trainer, None) is None


def test_the_same_settings_give_the_same_weights_whatever_the_keys():
    x = _clients()[0][0]
    found = []
    for _ in range(2):
        trainer = _trainer(epochs=1)
        for _ in trainer:
            pass
        found.append(trainer.network(x).forward(x))
    assert np.array_equal(*found)


def test_a_run_that_is_left_alone_can_go_on():
    trainer = _trainer(epochs=1)
    first = [next(trainer).step for _ in range(2)]
    assert first == [1, 2]
    assert [step.step for step in trainer] == [3, 4, 5, 6]


def test_ctrl_c_between_steps_loses_nothing():
    script = (
        "import gelu, numpy as np, os, signal, threading\n"
        "x = np.random.default_rng(0).random((40, 1, 28, 28), dtype=np.float32)\n"
        "y = np.arange(40) % 10\n"
        "net = gelu.Network.named('conv1')\n"
        "trainer = gelu.PrivateTrainer(net, [(x, y)], batch_size=20, leakage='off', turn=2)\n"
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: steps = [next(trainer)]\n"
        "except KeyboardInterrupt: steps = []; print('interrupted')\n"
        "print([step.step for step in steps + list(trainer)])"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["interrupted", "[1, 2]"]


def test_what_cannot_be_trained_is_refused():
    network = gelu.Network.named("mlp:4", input_shape=[4], classes=2)
    x, y = _clients()[0]
    with pytest.raises(gelu.TrainingError, match="label"):
        gelu.PrivateTrainer(network, [(x, y + 1)])
    with pytest.raises(ValueError, match="at least one pair"):
        gelu.PrivateTrainer(network, [])
    with pytest.raises(gelu.TensorError, match=r"\[N, 4\]"):
        gelu.PrivateTrainer(network, [(x[:, :3], y)])
    with pytest.raises(gelu.GeluError, match=r"paper.*strict.*off"):
        gelu.PrivateTrainer(network, [(x, y)], leakage="none")
    normalized = gelu.Network.named("resnet8:4")
    images = np.zeros((4, 3, 32, 32), dtype=np.float32)
    with pytest.raises(gelu.TrainingError, match="norm"):
        gelu.PrivateTrainer(normalized, [(images, np.zeros(4, dtype=int))])
