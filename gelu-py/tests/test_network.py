"""Networks: reading, planning, running in the clear."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import gelu


def test_a_plan_is_a_table_in_a_terminal_and_in_notebooks(lenet5):
    plan = lenet5.plan(batch=30, key_bits=2048)
    assert (plan.network, plan.batch, plan.key_bits, plan.key_type) == ("lenet5", 30, 2048, "djn")
    assert [segment["name"] for segment in plan.segments] == [
        "conv1+pool1",
        "conv2+pool2",
        "fc1",
        "fc2",
        "fc3",
    ]
    up, down = plan.ciphertexts
    assert plan.bytes == (up * 512, down * 512)
    lines = str(plan).splitlines()
    assert lines[2].split()[:3] == ["segment", "shape", "weights"]
    assert lines[-1].split()[:3] == ["all", str(up), str(down)]
    html = plan._repr_html_()
    assert html.count("<tr>") == 7
    assert "6x12x12" in html
    assert "-&gt;" in html


def test_a_plan_of_a_hidden_network(lenet5):
    plan = lenet5.plan(batch=4, key_bits=2048, hidden=True)
    assert isinstance(plan, gelu.HiddenPlan)
    assert (plan.batch, plan.round_trips, len(plan.segments)) == (4, 5, 5)
    lines = str(plan).splitlines()
    assert lines[0].endswith("hidden from the client")
    assert lines[-1].split()[:3] == ["all", *map(str, plan.ciphertexts)]
    assert plan._repr_html_().count("<tr>") == 7
    assert plan.ands == sum(segment["ands"] for segment in plan.segments) > 10_000
    # As `gelu plan --hide-model` says it.
    assert plan.online_bytes[1] > 50 * plan.online_bytes[0] > 0
    assert plan.client_bytes > plan.online_bytes[1]


def test_a_plan_follows_its_options(lenet5):
    assert lenet5.plan(prefer="bytes", key_bits=2048).bytes < lenet5.plan(prefer="time", key_bits=2048).bytes
    for options in ({"prefer": "speed"}, {"key_bits": 2000}, {"key_type": "rsa"}):
        with pytest.raises(ValueError, match=r"expected|must"):
            lenet5.plan(**options)


def test_fixed_point_is_near_the_network_itself(lenet5, images, repository):
    simulated, real = lenet5.simulate(images), lenet5.forward(images)
    assert simulated.dtype == np.float64
    assert real.dtype == np.float32
    assert simulated.shape == real.shape == (5, 10)
    assert np.allclose(simulated.sum(axis=1), 1)
    # On noise, the few bits of activations and inputs to which it was trained are coarse; more are not.
    assert np.abs(simulated - real).max() < 0.3
    fine = gelu.load(repository / "models" / "lenet5.safetensors", activation_bits=10, input_bits=8)
    assert np.abs(fine.simulate(images) - real).max() < 0.02
    outcome = lenet5.run_clear(images)
    assert np.array_equal(outcome.outputs, simulated)
    assert outcome.integers.dtype == np.int64
    assert np.array_equal(outcome.logits.argmax(axis=1), outcome.classes)


@pytest.mark.parametrize("file", ["lenet5.dynamo", "lenet5.script", "mobilenet.dynamo", "resnet20.script"])
def test_onnx_models_give_what_pytorch_computed(onnx_folder, file):
    expected = _tensors(onnx_folder / f"{file.split('.')[0]}.safetensors")
    x = expected["inputs"]
    path = onnx_folder / f"{file}.onnx"
    for model in (path, str(path), path.read_bytes()):
        net = gelu.from_onnx(model, calibration=x)
        found = net.forward(x)
        assert np.abs(found - expected["outputs"]).max() < 1e-4 * max(1, np.abs(found).max())
        assert net.is_calibrated
        assert "Conv" in net.report


def _tensors(path):
    """The tensors of a safetensors file of float32."""
    import json

    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            part = data[8 + length + begin : 8 + length + end]
            tensors[name] = np.frombuffer(part, dtype=np.float32).reshape(entry["shape"])
    return tensors


def test_what_onnx_cannot_bring_is_listed(tmp_path):
    with pytest.raises(gelu.GeluError, match=r"model\.onnx"):
        gelu.from_onnx(b"no model")
    with pytest.raises(OSError, match="nowhere"):
        gelu.from_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(TypeError, match="path or the bytes"):
        gelu.from_onnx(3)
    error = gelu.UnsupportedModel("message", [("a", "Loop", "why", "what to do")])
    assert error.nodes[0][1] == "Loop"
    assert isinstance(error, gelu.ModelError)


def test_a_network_without_ranges_says_so(onnx_folder):
    net = gelu.from_onnx(onnx_folder / "lenet5.dynamo.onnx")
    assert not net.is_calibrated
    assert "not calibrated" in repr(net)
    with pytest.raises(gelu.PlanError, match="calibrate"):
        net.plan()


def test_files_come_back_as_they_went(lenet5, images, tmp_path):
    lenet5.save(tmp_path / "copy.safetensors")
    copy = gelu.load(tmp_path / "copy.safetensors")
    assert copy.name == "copy"
    assert np.array_equal(copy.simulate(images), lenet5.simulate(images))
    pickled = pickle.loads(pickle.dumps(lenet5))
    assert pickled.name == "lenet5"
    assert np.array_equal(pickled.simulate(images), lenet5.simulate(images))
    spec = lenet5.client_spec()
    spec.save(tmp_path / "lenet5.json")
    again = gelu.ClientSpec.load(tmp_path / "lenet5.json")
    assert (again.name, again.input_shape, again.outputs, again.classes) == (
        "lenet5",
        [1, 28, 28],
        10,
        spec.classes,
    )
    assert again.can_be_hidden
    assert (tmp_path / "lenet5.json").stat().st_size < 20_000  # 44,426 weights would take more.
    with pytest.raises(ValueError, match="client's spec"):
        gelu.ClientSpec.load(tmp_path / "copy.safetensors")
    with pytest.raises(OSError, match="nowhere"):
        gelu.load(tmp_path / "nowhere.safetensors")


def test_inputs_of_other_shapes_and_types_are_refused(lenet5, images):
    flat = images.reshape(5, 784)
    assert np.array_equal(lenet5.simulate(flat), lenet5.simulate(images))
    assert np.array_equal(lenet5.simulate(images.astype(np.float64)), lenet5.simulate(images))
    assert np.array_equal(
        lenet5.simulate(images[:, :, ::-1, ::-1]), lenet5.simulate(images[:, :, ::-1, ::-1].copy())
    )
    for wrong in (images.reshape(5, 28, 28, 1), images[:, 0], images[:, :, :27], np.float32(1), flat.T):
        with pytest.raises(ValueError, match=r"expected an array of shape \[N, 1, 28, 28\] or \[N, 784\]"):
            lenet5.simulate(wrong)
    with pytest.raises(gelu.TensorError, match=r"x\[None\]"):
        lenet5.simulate(images[0])
    for dtype in (np.uint8, np.int64, np.float16, bool):
        with pytest.raises(TypeError, match="expected an array of float32 or float64"):
            lenet5.simulate((images * 255).astype(dtype))
    with pytest.raises(TypeError, match="object"):
        lenet5.simulate([None])
    wrong = images.copy()
    wrong[1, 0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        lenet5.simulate(wrong)
    with pytest.raises(gelu.TensorError):
        lenet5.simulate(images[:0])


def test_ctrl_c_stops_a_simulation(repository):
    script = (
        "import os, signal, sys, threading, time, gelu, numpy as np\n"
        "net = gelu.load(sys.argv[1])\n"
        "x = np.zeros((200_000, 784), dtype=np.float32)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: net.simulate(x)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try: net.fit(x, np.zeros(200_000, dtype=int))\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    model = repository / "models" / "lenet5.safetensors"
    ran = subprocess.run(
        [sys.executable, "-c", script, model], check=True, capture_output=True, text=True, timeout=30
    )
    assert ran.stdout.split() == ["interrupted", "interrupted"]


def test_many_inputs_are_simulated_as_few(lenet5):
    x = np.random.default_rng(3).random((150, 784), dtype=np.float32) * 1.5
    together, apart = lenet5.run_clear(x), [lenet5.run_clear(x[i : i + 50]) for i in (0, 50, 100)]
    for part in ("integers", "logits", "outputs", "classes"):
        assert np.array_equal(
            getattr(together, part), np.concatenate([getattr(one, part) for one in apart])
        ), part
    assert together.clamped == sum(one.clamped for one in apart) > 0


def test_bits_change_the_integers(onnx_folder, images):
    default, coarse = (
        gelu.from_onnx(onnx_folder / "lenet5.dynamo.onnx", calibration=images, weight_bits=bits)
        for bits in (None, 5)
    )
    assert default.plan().segments[0]["weight_bits"] == 9
    assert coarse.plan().segments[0]["weight_bits"] == 5
    assert coarse.plan().products < default.plan().products
    assert not np.array_equal(coarse.simulate(images), default.simulate(images))
    with pytest.warns(UserWarning, match="layer conv2 has weights up to"):
        gelu.from_onnx(onnx_folder / "lenet5.dynamo.onnx", weight_bits=3)
    with pytest.raises(ValueError, match="unknown model"):
        gelu.Network.named("lenet7")


def test_a_network_learns_in_the_clear():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    heard = []
    before = gelu.Network.named("mlp:8", input_shape=[4], classes=2)
    net = before.fit(x, y, epochs=20, batch_size=20, progress=lambda *said: heard.append(said))
    assert [epoch for epoch, _, _ in heard] == list(range(1, 21))
    assert heard[-1][2] < heard[0][2]
    assert (net.simulate(x).argmax(axis=1) == y).mean() > 0.95
    assert not before.is_calibrated
    with pytest.raises(gelu.TrainingError, match="label"):
        before.fit(x, y + 1)
    with pytest.raises(TypeError, match="integers"):
        before.fit(x, y.astype(float))
    with pytest.raises(ZeroDivisionError):
        before.fit(x, y, progress=lambda *_: 1 / 0)
