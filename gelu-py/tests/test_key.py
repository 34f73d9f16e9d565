"""Secret keys stay where they were made."""

import copy
import multiprocessing
import os
import pickle
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

import gelu


def test_a_key_is_not_pickled_or_copied(key):
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret key is not"):
            attempt(key)


def test_a_key_is_wiped_after_its_block(lenet5, images):
    with gelu.SecretKey.generate(1024) as key:
        client = gelu.Client(lenet5.client_spec(), key)
        connection = client.connect(gelu.Server(lenet5))
        connection.predict(images[:1])
        assert not key.is_wiped
    assert key.is_wiped
    assert "wiped" in repr(key)
    for use in (lambda: connection.predict(images), lambda: key.save("nowhere.key")):
        with pytest.raises(gelu.SecretKeyError, match="wiped"):
            use()


def test_a_key_file_is_its_owners(key, tmp_path):
    path = tmp_path / "clinic.key"
    key.save(path)
    key.save_public(tmp_path / "clinic.pub")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = gelu.SecretKey.load(path)
    assert (again.fingerprint, again.bits, again.key_type) == (key.fingerprint, 1024, "djn")
    path.chmod(0o644)
    with pytest.raises(OSError, match="0644"):
        gelu.SecretKey.load(path)
    public = tmp_path / "clinic.pub"
    public.chmod(0o600)
    with pytest.raises(gelu.WireError):
        gelu.SecretKey.load(public)


@pytest.mark.parametrize(("bits", "key_type"), [(1000, "djn"), (2048, "rsa")])
def test_unknown_keys_are_refused(bits, key_type):
    with pytest.raises(ValueError, match="must"):
        gelu.SecretKey.generate(bits, key_type=key_type)


def test_subgroup_keys_are_keys(small):
    net, x = small
    key = gelu.SecretKey.generate(2048, key_type="subgroup")
    found = gelu.Client(net.client_spec(), key).connect(gelu.Server(net)).predict(x)
    assert np.array_equal(found, net.simulate(x))


def _child(key, net, x, results):
    """In a forked process."""
    for attempt in (lambda: key.save("nowhere.key"), lambda: net.simulate(x)):
        try:
            attempt()
            results.put("nothing")
        except gelu.GeluError as error:
            results.put(f"{type(error).__name__}: {error}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_no_key_and_does_not_hang(key, small):
    net, x = small
    net.simulate(x)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_child, args=(key, net, x, results))
    process.start()
    said = [results.get(timeout=30) for _ in range(2)]
    process.join(30)
    assert said[0].startswith("SecretKeyError: this process was forked")
    assert said[1].startswith("ForkError")
    assert "spawn" in said[1]
    assert not key.is_wiped


INTERRUPTED = """
import sys
import numpy as np, gelu
net = gelu.load(sys.argv[1])
connection = gelu.Client(net.client_spec(), gelu.SecretKey.generate(2048), batch=1).connect(
    gelu.Server(net, mode="revealed")
)
x = np.zeros((2000, 1, 28, 28), dtype=np.float32)
try:
    connection.predict(x, progress=lambda done, of: print(done, flush=True))
except KeyboardInterrupt:
    print("interrupted", connection.predict(x[:1]).shape, flush=True)
"""


def test_ctrl_c_stops_after_a_step(repository):
    command = [sys.executable, "-c", INTERRUPTED, repository / "models" / "lenet5.safetensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "1"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[0].split("\n")
    assert "interrupted (1, 10)" in lines
    assert process.returncode == 0
    assert time.monotonic() - start < 5


def test_threads_are_set_before_work():
    script = (
        "import gelu, numpy as np; gelu.set_num_threads(1); assert gelu.get_num_threads() == 1\n"
        "try: gelu.set_num_threads(2)\n"
        "except RuntimeError as error: assert 'before' in str(error)\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_threads_belong_to_no_core(small):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("the system has no affinities")
    net, x = small
    net.simulate(x)
    cores = os.sched_getaffinity(0)
    for thread in os.listdir("/proc/self/task"):
        assert os.sched_getaffinity(int(thread)) == cores


def test_the_package_is_small_and_quick_to_import():
    """With numpy there already, 0.3 s at most; the best of three, since the machine may be busy."""
    script = (
        "import numpy, time; start = time.perf_counter(); import gelu; print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.3
