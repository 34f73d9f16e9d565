"""What Python costs beside Rust: `python gelu-py/benches/overhead.py [RUNS]`, where the wheel is installed.

LeNet-5 with weighted sums revealed and a key of 2048 bits, one image and a batch of 81. Each run is a process
of its own, of Python and of the command `gelu` (GELU_BIN) in turn, whose threads are bound to no core either.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = os.environ.get("GELU_BIN", str(REPOSITORY / "target" / "release" / "gelu"))
MODEL = str(REPOSITORY / "models" / "lenet5.safetensors")

PREDICT = """
import json, sys, time
import gelu, numpy as np
net = gelu.load(sys.argv[1])
key = gelu.SecretKey.generate(2048)
connection = gelu.Client(net.client_spec(), key, batch=81).connect(gelu.Server(net, mode="revealed"))
x = (np.load(sys.argv[2])["x"][:int(sys.argv[3]), None] / np.float32(255)).astype(np.float32)
times = []
for _ in range(10):
    start = time.perf_counter()
    outcome = connection.run(x)
    times.append((time.perf_counter() - start, outcome.seconds))
print(json.dumps(times))
"""

IMPORT = "import numpy, time; t = time.perf_counter(); import gelu; print(time.perf_counter() - t)"

IDLE = """
import sys, time
import gelu
serving = gelu.Server(sys.argv[1]).serve("127.0.0.1:0")
time.sleep(1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def _run(command: list[str]) -> str:
    environment = {**os.environ, "GELU_PIN": "off"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _python(script: str, *arguments: str) -> str:
    return _run([sys.executable, "-c", script, *arguments])


def main() -> None:
    """Print all figures."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "images.npz")
        pixels = np.random.default_rng(0).integers(0, 256, (81, 28, 28), dtype=np.uint8)
        np.savez(data, x=pixels, y=np.zeros(81, dtype=np.int64))
        for images in (1, 81):
            infer = [COMMAND, "infer", "--model", MODEL, "--dataset", data, "--count", str(images)]
            infer += ["--batch", str(images), "--key-bits", "2048", "--json"]
            rust, first, within = [], [], []
            for _ in range(runs):
                rust.append(json.loads(_run(infer))["seconds_total"])
                times = json.loads(_python(PREDICT, MODEL, data, str(images)))
                first.append(times[0][0])
                within += [whole / inner - 1 for whole, inner in times]
            ours, theirs = statistics.median(first), statistics.median(rust)
            print(f"{images} images: Rust {1e3 * theirs:.2f} ms, Python {1e3 * ours:.2f} ms,", end=" ")
            print(
                f"{ours / theirs - 1:+.1%}; around the run, within Python: {statistics.median(within):+.2%}"
            )
    imports = [float(_python(IMPORT)) for _ in range(runs)]
    print(f"import gelu, numpy being there: {statistics.median(imports):.3f} s")
    idle = [int(_python(IDLE, MODEL)) for _ in range(3)]
    print(f"an idle server with LeNet-5: {statistics.median(idle) / 1e3:.1f} MB")


if __name__ == "__main__":
    main()
