"""Core-seconds and bytes of an image: `python gelu-py/benches/core_seconds.py MODEL BATCH IMAGES [MODE]`.

MODEL is a model file or a network by name. A server and a client are a process each, on all cores; the
mode is "revealed" or "hidden", the key a subgroup key of 2048 bits. Seconds are user and system time of each
process, without what comes before the first image and with the opening of one session.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import gelu

SERVE = """
import sys
import gelu, numpy as np
sys.path.insert(0, sys.argv[1])
import core_seconds
server = gelu.Server(core_seconds.network(sys.argv[2]), mode=sys.argv[4])
server.client_spec().save(sys.argv[3])
with server.serve("127.0.0.1:0") as serving:
    print(serving.url, flush=True)
    sys.stdin.read()
"""


def network(model: str) -> gelu.Network:
    """Return the network of a file, or one by name with random weights."""
    if Path(model).exists():
        return gelu.load(model)
    net = gelu.Network.named(model)
    x = np.random.default_rng(1).random((8, *net.input_shape), dtype=np.float32)
    return net.calibrated(x)


def core_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures."""
    model, batch, images = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    mode = sys.argv[4] if len(sys.argv) > 4 else "revealed"
    with tempfile.TemporaryDirectory() as folder:
        spec = str(Path(folder) / "spec.json")
        command = [sys.executable, "-c", SERVE, str(Path(__file__).parent), model, spec, mode]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdout
        url = server.stdout.readline().strip()
        client = gelu.Client(spec, gelu.SecretKey.generate(2048, key_type="subgroup"), batch=batch)
    with server:
        connection = client.connect(url)
        x = np.random.default_rng(0).random((images, *client.spec.input_shape), dtype=np.float32)
        connection.run(x[:batch])
        before = [core_seconds(pid) for pid in (server.pid, os.getpid())]
        outcome = connection.run(x)
        after = [core_seconds(pid) for pid in (server.pid, os.getpid())]
        server.communicate("")
    ours, theirs = ((b - a) / images for a, b in zip(before, after, strict=True))
    up, down = outcome.bytes_up / images / 1e3, outcome.bytes_down / images / 1e3
    print(
        f"{model}, {mode}, batch of {batch}, {images} images: server {ours:.4f} core-s an image, "
        f"client {theirs:.4f}; {up:.1f} kB up, {down:.1f} down"
    )


if __name__ == "__main__":
    main()
