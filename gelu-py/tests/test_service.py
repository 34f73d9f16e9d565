"""Servers and clients over a network."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import gelu


@pytest.mark.parametrize("mode", ["hidden", "revealed", "class", "any"])
def test_a_server_on_this_machine(lenet5, key, images, mode):
    server = gelu.Server(lenet5, mode=mode)
    client = gelu.Client(server.client_spec(), key, batch=2)
    with server.serve("127.0.0.1:0") as serving:
        assert serving.url == f"http://{serving.address}"
        assert "listens at" in repr(serving)
        connection = client.connect(serving.url)
        assert connection.mode == ("hidden" if mode == "any" else mode)
        assert connection.fingerprint is None
        heard = []
        classes = connection.predict_classes(images, progress=lambda *said: heard.append(said))
        assert np.array_equal(classes, lenet5.run_clear(images, hidden=mode != "revealed").classes)
        assert heard[-1] == (5, 5)
        if mode == "any":
            outputs = client.connect(serving.url, mode="revealed").predict(images)
            assert np.array_equal(outputs, lenet5.simulate(images))
    assert "stopped" in repr(serving)
    with pytest.raises(gelu.ServiceError, match="cannot reach"):
        client.connect(serving.url)


def test_a_server_between_machines_by_certificates(command, lenet5, key, images, tmp_path):
    subprocess.run(
        [command, "certs", "--out", tmp_path, "--server", "localhost", "--client", "north"], check=True
    )
    ours = gelu.Tls(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    theirs = gelu.Tls(tmp_path / "north.pem", tmp_path / "north.key", tmp_path / "ca.pem")
    state = tmp_path / "state"
    with gelu.Server(lenet5).serve(
        "127.0.0.1:0", tls=ours, state=state, budget=6, metrics="127.0.0.1:0"
    ) as serving:
        assert serving.metrics
        url = f"https://localhost:{serving.address.split(':')[1]}"
        client = gelu.Client(lenet5.client_spec(), key)
        connection = client.connect(url, tls=theirs)
        assert np.array_equal(connection.predict(images), lenet5.simulate(images))
        assert len(connection.fingerprint) == 64
        client.connect(url, tls=theirs, fingerprint=connection.fingerprint)
        with pytest.raises(gelu.ServiceError, match="expected the server's key"):
            client.connect(url, tls=theirs, fingerprint="ab" * 32)
        with pytest.raises(gelu.GeluError, match=r"6|budget|spent"):
            connection.predict(images)
        (tmp_path / "north.key").chmod(0o644)
        with pytest.raises(OSError, match="0644"):
            client.connect(url, tls=theirs)


def test_without_certificates_other_machines_are_not_served(lenet5, key):
    with pytest.raises(gelu.ServiceError, match="expected TLS"):
        gelu.Server(lenet5).serve("0.0.0.0:0")
    with pytest.raises(gelu.ServiceError, match="expected TLS"):
        gelu.Client(lenet5.client_spec(), key).connect("http://192.0.2.1:7443")
    with pytest.raises(ValueError, match="state"):
        gelu.Server(lenet5).serve("127.0.0.1:0", budget=3)


def test_another_network_is_refused_before_anything_is_sent(lenet5, small, key):
    server, client = gelu.Server(lenet5), gelu.Client(small[0].client_spec(), key)
    with server.serve("127.0.0.1:0") as serving, pytest.raises(gelu.InferenceError, match="found `lenet5`"):
        client.connect(serving.url)


def test_a_script_serves_until_ctrl_c(repository, lenet5, key, images):
    script = (
        "import gelu, sys\n"
        "serving = gelu.Server(sys.argv[1]).serve('127.0.0.1:0')\n"
        "print(serving.url, flush=True)\n"
        "try: serving.wait()\n"
        "except KeyboardInterrupt: print('over', flush=True)"
    )
    path = repository / "models" / "lenet5.safetensors"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        found = gelu.Client(lenet5.client_spec(), key).connect(url).predict(images)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert np.array_equal(found, lenet5.simulate(images, hidden=True))
    assert said.strip() == "over"
    assert process.returncode == 0


def test_a_stopped_server_ends_a_prediction(lenet5, key):
    server = gelu.Server(lenet5, mode="revealed")
    serving = server.serve("127.0.0.1:0")
    connection = gelu.Client(lenet5.client_spec(), key, batch=1).connect(serving.url)
    x = np.zeros((2000, 1, 28, 28), dtype=np.float32)
    with pytest.raises(gelu.GeluError, match=r"stop|broke|reach"):
        connection.predict(x, progress=lambda done, _: serving.stop() if done == 1 else None)
