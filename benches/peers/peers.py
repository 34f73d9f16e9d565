"""Times the same operations with python-paillier, SecretFlow HEU, TenSEAL and gelu, on one core, in one run.

Called by `gelu bench peers`. Makes a virtual environment, installs requirements.txt into it line by line, and times
each library in a process of its own. Keys have 2048 bits; the dot product is of 256 ciphertexts with signed 16-bit
weights.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BITS = 2048
LENGTH = 256
OPERATIONS = ["encrypt", "decrypt", "add", "times 16-bit scalar", "dot product of 256"]
# What gelu calls them.
GELU_NAMES = {
    "encryption by the key's owner": "encrypt",
    "decryption": "decrypt",
    "sum of two ciphertexts": "add",
    "times a signed 16-bit scalar": "times 16-bit scalar",
    "dot product of 256, signed 16-bit weights, one of 120 outputs": "dot product of 256",
}
LIBRARIES = {
    "python-paillier": ["phe", "gmpy2"],
    "HEU ZPaillier": ["numpy", "sf-heu"],
    "HEU OU": ["numpy", "sf-heu"],
    "TenSEAL CKKS": ["numpy", "tenseal"],
}
NOTES = {
    "gelu subgroup": "subgroup keys (Ma, Han, Lei 2021)",
    "HEU OU": "Okamoto-Uchiyama: another cryptosystem",
    "TenSEAL CKKS": "approximate numbers, 4096 slots a ciphertext; here one vector of 256 in one ciphertext",
}


def median_seconds(work, repeat, runs=5):
    """The median over `runs` of the time of one of `repeat` calls, after a call that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        times.append((time.perf_counter() - start) / repeat)
    return statistics.median(times)


def weights():
    rng = random.Random(1)
    return [rng.randrange(-(2**15), 2**15) for _ in range(LENGTH)]


def python_paillier():
    from phe import paillier, util

    if not util.HAVE_GMP:
        raise RuntimeError("phe does not find gmpy2")
    public, private = paillier.generate_paillier_keypair(n_length=BITS)
    w = weights()
    c = [public.encrypt(x) for x in range(LENGTH)]

    def dot():
        total = c[0] * w[0]
        for x, k in zip(c[1:], w[1:]):
            total = total + x * k
        return total

    assert private.decrypt(dot()) == sum(x * k for x, k in enumerate(w))
    return {
        "encrypt": median_seconds(lambda: public.encrypt(12345), 5),
        "decrypt": median_seconds(lambda: private.decrypt(c[7]), 10),
        "add": median_seconds(lambda: c[3] + c[4], 100),
        "times 16-bit scalar": median_seconds(lambda: c[3] * 31415, 50),
        "dot product of 256": median_seconds(dot, 1),
    }


def heu(schema):
    from heu import phe

    kit = phe.setup(getattr(phe.SchemaType, schema), BITS)
    encoder = phe.BigintEncoder(kit.get_schema()) if hasattr(phe, "BigintEncoder") else None
    encode = encoder.encode if encoder else (lambda x: phe.Plaintext(kit.get_schema(), x))
    encryptor, decryptor, evaluator = kit.encryptor(), kit.decryptor(), kit.evaluator()
    w = [encode(k) for k in weights()]
    plain = [encode(x) for x in range(LENGTH)]
    c = [encryptor.encrypt(x) for x in plain]

    def dot():
        total = evaluator.mul(c[0], w[0])
        for x, k in zip(c[1:], w[1:]):
            evaluator.add_inplace(total, evaluator.mul(x, k))
        return total

    found, expected = int(str(decryptor.decrypt(dot()))), sum(x * k for x, k in enumerate(weights()))
    assert found == expected, (found, expected)
    scalar = encode(31415)
    matrices = heu_matrix_product(schema)
    return {
        "encrypt": median_seconds(lambda: encryptor.encrypt(plain[99]), 200),
        "decrypt": median_seconds(lambda: decryptor.decrypt(c[7]), 50),
        "add": median_seconds(lambda: evaluator.add(c[3], c[4]), 200),
        "times 16-bit scalar": median_seconds(lambda: evaluator.mul(c[3], scalar), 100),
        # The better of the library's two ways.
        "dot product of 256": min(median_seconds(dot, 1), median_seconds(matrices, 1)),
    }


def heu_matrix_product(schema):
    """The same dot product as a product of matrices, which HEU computes without Python between the steps."""
    import numpy
    from heu import numpy as hnp
    from heu import phe

    kit = hnp.setup(getattr(phe.SchemaType, schema), BITS)
    encoder = phe.BigintEncoderParams()
    row = kit.encryptor().encrypt(kit.array(numpy.arange(LENGTH).reshape(1, LENGTH), encoder))
    column = kit.array(numpy.array(weights()).reshape(LENGTH, 1), encoder)
    evaluator = kit.evaluator()
    return lambda: evaluator.matmul(row, column)


def tenseal():
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2**40
    context.generate_galois_keys()
    x, w = list(range(LENGTH)), weights()
    c = ts.ckks_vector(context, x)
    found, expected = c.dot(w).decrypt()[0], sum(a * b for a, b in zip(x, w))
    assert abs(found - expected) < 1e-3 * max(1, abs(expected)), (found, expected)
    return {
        "encrypt": median_seconds(lambda: ts.ckks_vector(context, x), 10),
        "decrypt": median_seconds(lambda: c.decrypt(), 10),
        "add": median_seconds(lambda: c + c, 50),
        "times 16-bit scalar": median_seconds(lambda: c * 31415, 20),
        "dot product of 256": median_seconds(lambda: c.dot(w), 3),
    }


MEASURES = {
    "python-paillier": python_paillier,
    "HEU ZPaillier": lambda: heu("ZPaillier"),
    "HEU OU": lambda: heu("OU"),
    "TenSEAL CKKS": tenseal,
}


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


def install(environment):
    """The Python of the environment, and why each requirement that is missing is missing."""
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, stdout=sys.stderr)
    missing = {}
    for line in (HERE / "requirements.txt").read_text().splitlines():
        requirement = line.strip()
        if not requirement or requirement.startswith("#"):
            continue
        print(f"installing {requirement}", file=sys.stderr)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", requirement],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            missing[requirement.split("==")[0]] = last_line(done.stderr)
    return python, missing


def measure(python, name):
    done = subprocess.run([str(python), __file__, "--measure", name], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(last_line(done.stderr))
    return json.loads(done.stdout.splitlines()[-1])


def gelu(program, key_type):
    arguments = ["bench", "--model", "conv1", "--key-type", key_type, "--threads", "1", "--json"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    times = {GELU_NAMES[o["name"]]: o["seconds_one_thread"] for o in report["operations"] if o["name"] in GELU_NAMES}
    return times, report["limit_ns"]


def human(seconds):
    for scale, unit in [(1e-6, "ns"), (1e-3, "us"), (1.0, "ms")]:
        if seconds < scale:
            return f"{seconds / scale * 1e3:.1f} {unit}"
    return f"{seconds:.2f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gelu", default="gelu", help="the gelu program")
    parser.add_argument("--environment", type=Path, default=Path("target/peers"), help="the virtual environment")
    parser.add_argument("--core", type=int, default=0, help="the core that everything runs on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASURES[args.measure]()))
        return
    python, missing = install(args.environment.absolute())
    if hasattr(os, "sched_setaffinity"):
        # What is started from here on inherits it.
        os.sched_setaffinity(0, {args.core})
    rows = []
    limits = []
    for key_type in ["djn", "subgroup"]:
        print(f"timing gelu, {key_type} key", file=sys.stderr)
        times, limit = gelu(args.gelu, key_type)
        limits.append(limit)
        rows.append({"library": f"gelu {key_type}", "seconds": times})
    for name, packages in LIBRARIES.items():
        print(f"timing {name}", file=sys.stderr)
        reasons = [f"{package}: {missing[package]}" for package in packages if package in missing]
        row = {"library": name}
        try:
            if reasons:
                raise RuntimeError("; ".join(reasons))
            row["seconds"] = measure(python, name)
        except RuntimeError as error:
            row["not_available"] = str(error)
        rows.append(row)
    djn, subgroup = rows[0]["seconds"], rows[1]["seconds"]
    for row in rows:
        row["note"] = NOTES.get(row["library"])
        if "seconds" in row:
            row["times_gelu_djn"] = {o: row["seconds"][o] / djn[o] for o in OPERATIONS}
            row["times_gelu_subgroup"] = {o: row["seconds"][o] / subgroup[o] for o in OPERATIONS}
    result = {"key_bits": BITS, "core": args.core, "limit_ns": statistics.mean(limits), "rows": rows}
    if args.json:
        print(json.dumps(result))
        return
    print(f"keys of {BITS} bits, core {args.core}, limit_ns {result['limit_ns']:.0f}")
    print("in brackets: how many times gelu's time that is, with a DJN key / a subgroup key\n")
    for operation in OPERATIONS:
        print(operation)
        for row in rows:
            if "seconds" not in row:
                print(f"  {row['library']:<16} not available: {row['not_available']}")
                continue
            ratios = f"({row['times_gelu_djn'][operation]:.1f} / {row['times_gelu_subgroup'][operation]:.1f})"
            print(f"  {row['library']:<16} {human(row['seconds'][operation]):>10}  {ratios:<20} {row['note'] or ''}")


if __name__ == "__main__":
    main()
