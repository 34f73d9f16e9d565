"""The tables of docs/scaling.md: `python gelu-py/benches/scaling.py`, with your own prices by options.

The costs of an image are those that `core_seconds.py` and `resnet50.py` measured and planned; to compute with
others, give `--image NAME SERVER_CORE_SECONDS CLIENT_CORE_SECONDS KB_UP KB_DOWN`.
"""

from __future__ import annotations

import argparse

# Name, core-seconds of the server and of the client, kB up and down, for one image.
IMAGES: list[tuple[str, float, float, float, float]] = [
    ("LeNet-5, by 64", 0.0025, 0.0025, 15.4, 10.7),
    ("LeNet-5, one at a time", 0.0332, 0.0118, 119.5, 25.7),
    ("LeNet-5, hidden", 0.0112, 0.0101, 433.7, 2140.5),
    ("ResNet-20, by 8", 1.0088, 0.5994, 10110.8, 1235.4),
    ("ResNet-20, hidden", 3.855, 2.455, 108383.5, 368698.2),
    # By its plan: 91,060,405 products of 784 ns, 298,231 ciphertexts up of 20 us, 125,071 down of 91 us.
    ("ResNet-50", 71.4, 17.3, 152_700.0, 64_000.0),
]


def _figures(number: float) -> str:
    """Return it with three figures, and no exponent."""
    return f"{float(f'{number:.3g}'):,g}"


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{_figures(seconds / length)} {unit}"
    return f"{_figures(seconds)} s"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core-hour", type=float, default=0.04, help="money for a core for an hour")
    parser.add_argument("--egress", type=float, default=0.08, help="money for a GB out of the servers' site")
    parser.add_argument("--cores", type=int, default=16, help="cores of a machine")
    parser.add_argument("--link", type=float, default=10.0, help="Gbit/s of a machine, or of a client")
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 10, 100, 1000])
    parser.add_argument("--image", nargs=5, action="append", metavar="COST")
    given = parser.parse_args()
    images = [(name, *map(float, costs)) for name, *costs in given.image or []] or IMAGES

    print(
        "| a million images | server, core-h | client, core-h | TB up | TB down | servers | client | egress |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, server, client, up, down in images:
        hours = [1e6 * seconds / 3600 for seconds in (server, client)]
        money = [hour * given.core_hour for hour in hours]
        print(f"| {name} | {hours[0]:,.1f} | {hours[1]:,.1f} | {up / 1e3:.3g} | {down / 1e3:.3g} ", end="")
        print(f"| {money[0]:,.2f} | {money[1]:,.2f} | {down * given.egress:,.2f} |")

    print()
    print(
        "| a million takes, machines: | " + " | ".join(f"{machines:,}" for machines in given.machines) + " |"
    )
    print("|---" * (1 + len(given.machines)) + "|")
    for name, server, *_ in images:
        times = [_time(1e6 * server / machines / given.cores) for machines in given.machines]
        print(f"| {name} | " + " | ".join(times) + " |")

    print()
    print("| for each machine | images a second | Gbit/s up | Gbit/s down | client's cores ", end="")
    print(f"| {given.link:g} Gbit/s are full at | {given.cores} cores of a client are busy at |")
    print("|---|---|---|---|---|---|---|")
    for name, server, client, up, down in images:
        rate = given.cores / server
        gigabits = [rate * kilobytes * 8e-6 for kilobytes in (up, down)]
        print(f"| {name} | {_figures(rate)} | {gigabits[0]:.3g} | {gigabits[1]:.3g} ", end="")
        print(f"| {rate * client:.1f} | {given.link / max(gigabits):.1f} machines ", end="")
        print(f"| {server / client:.1f} machines |")


if __name__ == "__main__":
    main()
