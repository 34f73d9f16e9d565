"""Known answers for Paillier, made by an independent implementation: python-paillier 1.5 (`pip install phe==1.5.0`).

    python make_vectors.py > vectors.json

The output is the same on every run: primes, plaintexts and random factors come from generators with fixed seeds.
All numbers are hexadecimal. The primes are 3 mod 4 with gcd(p - 1, q - 1) = 2, as gelu-net's keys need them. For each
key there is, for every case, the ciphertext c of m with the random factor r (c = (1 + n)^m r^n mod n^2); the
ciphertext of the sum of this case's and the next case's plaintexts as phe adds them, and of the product with a scalar.
phe's own decryption is checked before anything is written.
"""

import json
import math
import random

from phe import EncryptedNumber, PaillierPrivateKey, PaillierPublicKey
from phe.util import is_prime


def prime(rng, bits):
    while True:
        # The two top bits are set, so that a product of two such primes has twice the bits.
        candidate = rng.getrandbits(bits) | 3 << bits - 2 | 3
        if is_prime(candidate):
            return candidate


def unit(rng, n):
    while True:
        r = rng.randrange(1, n)
        if math.gcd(r, n) == 1:
            return r


def key(bits):
    rng = random.Random(bits)
    while True:
        p, q = prime(rng, bits // 2), prime(rng, bits // 2)
        if p != q and math.gcd(p - 1, q - 1) == 2:
            break
    public = PaillierPublicKey(p * q)
    private = PaillierPrivateKey(public, p, q)
    n = public.n
    plaintexts = [0, 1, n - 1, n // 2, 1 << 64, n - (1 << 33)] + [rng.randrange(n) for _ in range(4)]
    scalars = [0, 1, 2, 4095, n - 1, (1 << 64) - 1] + [rng.randrange(n) for _ in range(4)]
    factors = [1, n - 1] + [unit(rng, n) for _ in range(8)]
    ciphertexts = [public.raw_encrypt(m, r_value=r) for m, r in zip(plaintexts, factors)]
    cases = []
    for i, (m, r, c, scalar) in enumerate(zip(plaintexts, factors, ciphertexts, scalars)):
        number = EncryptedNumber(public, c)
        following = (i + 1) % len(plaintexts)
        total = number._raw_add(c, ciphertexts[following])
        multiple = number._raw_mul(scalar)
        assert private.raw_decrypt(c) == m
        assert private.raw_decrypt(total) == (m + plaintexts[following]) % n
        assert private.raw_decrypt(multiple) == m * scalar % n
        cases.append(
            {"m": m, "r": r, "c": c, "sum": total, "scalar": scalar, "multiple": multiple}
        )
    return {
        "bits": bits,
        "n": f"{n:x}",
        "p": f"{p:x}",
        "q": f"{q:x}",
        "cases": [{name: f"{value:x}" for name, value in case.items()} for case in cases],
    }


print(json.dumps([key(bits) for bits in (1024, 2048)], indent=1))
