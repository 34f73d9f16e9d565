"""Encrypted predictions: equal to those in the clear, and to Rust's own."""

import gc
import json
import subprocess
import threading

import numpy as np
import pytest

import gelu

MODES = ("hidden", "revealed")


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_those_of_the_command_bit_for_bit(
    command, repository, lenet5, key, pixels, images, tmp_path, mode
):
    """The command computes in Rust, on ciphertexts too."""
    np.savez(tmp_path / "images.npz", x=pixels, y=np.zeros(len(pixels), dtype=np.int64))
    options = ["--count", "5", "--key-bits", "1024", "--json"]
    options += ["--hide-model"] if mode == "hidden" else ["--batch", "5"]
    model = repository / "models" / "lenet5.safetensors"
    ran = subprocess.run(
        [command, "infer", "--model", model, "--dataset", tmp_path / "images.npz", *options],
        check=True,
        capture_output=True,
    )
    rows = json.loads(ran.stdout)["rows"]
    connection = gelu.Client(lenet5.client_spec(), key).connect(gelu.Server(lenet5, mode=mode))
    outputs = connection.predict(images)
    assert [int(row["class"]) for row in rows] == outputs.argmax(axis=1).tolist()
    assert [row["confidence"] for row in rows] == outputs.max(axis=1).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_the_simulated_ones_bit_for_bit(lenet5, key, images, mode):
    connection = gelu.Client(lenet5.client_spec(), key, batch=2).connect(gelu.Server(lenet5, mode=mode))
    heard = []
    outcome = connection.run(images, progress=lambda *said: heard.append(said))
    clear = lenet5.run_clear(images, hidden=mode == "hidden")
    for part in ("integers", "logits", "outputs", "classes"):
        assert np.array_equal(getattr(outcome, part), getattr(clear, part)), part
    assert heard == [(2, 5), (4, 5), (5, 5)]
    assert outcome.seconds > 0
    assert outcome.bytes_up > 10_000
    assert outcome.bytes_down > 10_000


def test_the_class_alone_can_be_revealed(lenet5, key, images):
    server = gelu.Server(lenet5, mode="class")
    client = gelu.Client(server.client_spec(), key)
    connection = client.connect(server)
    assert connection.mode == "class"
    assert np.array_equal(connection.predict_classes(images), lenet5.run_clear(images, hidden=True).classes)
    assert connection.run(images).outputs.shape == (5, 0)
    with pytest.raises(gelu.InferenceError, match="predict_classes"):
        connection.predict(images)
    with pytest.raises(gelu.InferenceError, match="offers its network as class"):
        client.connect(server, mode="hidden")


def test_requests_are_answered_without_any_io(lenet5, key, images):
    for mode in MODES:
        server = gelu.Server(lenet5, mode=mode)
        sizes = []

        def carry(request, server=server, sizes=sizes):
            reply = server.step(request)
            assert isinstance(request, bytes)
            assert isinstance(reply, bytes)
            sizes.append((len(request), len(reply)))
            return reply

        outputs = gelu.Client(lenet5.client_spec(), key).connect(carry, mode=mode).predict(images)
        assert np.array_equal(outputs, lenet5.simulate(images, hidden=mode == "hidden"))
        assert server.conversations == 0
        # To open the session, for each segment (ahead, too, of a hidden model), and to end it.
        assert len(sizes) == (7 if mode == "revealed" else 9)


def test_requests_that_no_client_sends_are_refused(lenet5, key, images):
    server = gelu.Server(lenet5)
    for request in (b"", b"x" * 10, b"x" * 16 + b"\2", b"x" * 16 + b"\1" + b"\5\0\0\0ab"):
        with pytest.raises(gelu.InferenceError, match="expected"):
            server.step(request)
    reply = server.step(b"x" * 16 + b"\1" + b"\3\0\0\0abc")
    assert b"malformed" in reply.lower()
    assert server.conversations == 0
    connection = gelu.Client(lenet5.client_spec(), key).connect(server.step, mode="revealed")
    with pytest.raises(gelu.InferenceError, match="does not offer its network revealed"):
        connection.predict(images)
    for carry, error in ((lambda _: b"abc", gelu.InferenceError), (lambda _: 1 / 0, ZeroDivisionError)):
        with pytest.raises(error):
            gelu.Client(lenet5.client_spec(), key).connect(carry).predict(images)
    with pytest.raises(gelu.DisconnectedError):
        gelu.Client(lenet5.client_spec(), key).connect(lambda _: b"").predict(images)


def test_another_network_at_the_server_is_found_out(lenet5, repository, key, images):
    other = gelu.load(repository / "models" / "conv1.safetensors")
    for mode in MODES:
        connection = gelu.Client(lenet5.client_spec(), key).connect(gelu.Server(other, mode=mode))
        with pytest.raises(gelu.InferenceError, match="found another at the server"):
            connection.predict(images)


def test_several_threads_predict_at_a_time(lenet5, key, images):
    connection = gelu.Client(lenet5.client_spec(), key).connect(gelu.Server(lenet5, mode="revealed"))
    expected, found = lenet5.simulate(images), {}

    def predict(index):
        found[index] = connection.predict(images)

    threads = [threading.Thread(target=predict, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(one, expected) for one in found.values())


def test_other_threads_run_during_a_prediction(lenet5, images):
    """Whoever predicts does not hold the interpreter's lock: another thread counts on meanwhile."""
    connection = gelu.Client(lenet5.client_spec(), gelu.SecretKey.generate(2048)).connect(
        gelu.Server(lenet5, mode="revealed")
    )
    steps, is_over = [], threading.Event()

    def count():
        while not is_over.wait(0.001):
            steps.append(None)

    thread = threading.Thread(target=count)
    thread.start()
    outcome = connection.run(images)
    is_over.set()
    thread.join()
    # With the lock held throughout, there would be one or two.
    assert len(steps) > 100 * outcome.seconds


def test_an_exception_of_the_callback_ends_the_run(lenet5, key, images):
    connection = gelu.Client(lenet5.client_spec(), key, batch=1).connect(gelu.Server(lenet5))
    with pytest.raises(ZeroDivisionError):
        connection.predict(images, progress=lambda done, of: 1 / (done - 2))
    assert connection.predict(images[:1]).shape == (1, 10)


def test_a_thousand_predictions_take_no_more_memory(key):
    x = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)
    net = gelu.Network.named("mlp:2", input_shape=[4], classes=2).calibrated(x)
    connection = gelu.Client(net.client_spec(), key).connect(gelu.Server(net, mode="revealed"))

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 / 1e6

    for _ in range(100):
        connection.predict(x)
    gc.collect()
    before = resident()
    for _ in range(1000):
        connection.predict(x)
    gc.collect()
    assert resident() - before < 8  # MB: a leak of a session's tables would be hundreds


def test_objects_say_whose_they_are(lenet5, key):
    server = gelu.Server(lenet5)
    client = gelu.Client(server.client_spec(), key)
    assert "model owner" in repr(lenet5)
    assert "with weights" in repr(lenet5)
    assert "no key" in repr(server)
    assert "data owner" in repr(client)
    assert key.fingerprint[:12] in repr(client)
    assert "no weights" in repr(client)
    assert "without weights" in repr(client.spec)
    assert "data owner" in repr(client.connect(server))
    with pytest.raises(TypeError, match="URL"):
        client.connect(3)
    with pytest.raises(ValueError, match="batch"):
        gelu.Client(client.spec, key, batch=0)
    with pytest.raises(ValueError, match="mode"):
        gelu.Server(lenet5, mode="secret")
