"""The tables of docs/scaling.md: `python gelu-py/benches/scaling.py`, with your own prices by options.

The costs of an image are those that `core_seconds.py` and `resnet50.py` measured and planned; to compute with
others, give `--image NAME SERVER_CORE_SECONDS CLIENT_CORE_SECONDS KB_UP KB_DOWN`.
"""

from __future__ import annotations

import argparse

# Name, core-seconds of the server and of the client, kB up and down, for one image.
IMAGES: list[tuple[str, float, float, float, float]] = []


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
    print("| network | machines | images a second | a million takes | Gbit/s in all | client's cores |")
    print("|---|---|---|---|---|---|")
    for name, server, client, up, down in images:
        for machines in given.machines:
            rate = machines * given.cores / server
            hours = 1e6 / rate / 3600
            took = f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
            gigabits = rate * (up + down) * 8e-6
            print(
                f"| {name} | {machines:,} | {rate:,.3g} | {took} | {gigabits:,.3g} | {rate * client:,.0f} |"
            )

    print()
    print("| network | a machine's Gbit/s | a client's link is full at | a client of as many cores at |")
    print("|---|---|---|---|")
    for name, server, client, up, down in images:
        of_machine = given.cores / server * (up + down) * 8e-6
        print(f"| {name} | {of_machine:.3g} | {given.link / of_machine:.3g} machines ", end="")
        print(f"| {server / client:.3g} machines |")


if __name__ == "__main__":
    main()
