"""Plans as tables, in a terminal and in notebooks."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any


def _shape(extents: Sequence[int]) -> str:
    return "x".join(str(extent) for extent in extents)


class _Table(ABC):
    """Segments of a plan as rows of a table."""

    _HEADER: tuple[str, ...] = ()
    # Columns of text, which stand to the left.
    _TEXT: tuple[int, ...] = ()

    def __init__(self, summary: dict[str, Any], segments: list[dict[str, Any]]) -> None:
        self.network: str = summary["network"]
        self.key_bits: int = summary["key_bits"]
        self.key_type: str = summary["key_type"]
        self.batch: int = summary["batch"]
        self.segments = segments

    def _sum(self, column: str) -> int:
        return sum(segment[column] for segment in self.segments)

    @property
    def ciphertexts(self) -> tuple[int, int]:
        """Ciphertexts of a batch from client to server, and back."""
        return self._sum("ciphertexts_up"), self._sum("ciphertexts_down")

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes of a batch's ciphertexts from client to server, and back."""
        return self._sum("bytes_up"), self._sum("bytes_down")

    @property
    def products(self) -> int:
        """The server's products and squarings mod n^2 for a batch."""
        return self._sum("products")

    def _title(self) -> str:
        return f"{self.network}, {self.key_type} key of {self.key_bits} bits, batch of {self.batch}"

    @abstractmethod
    def _rows(self) -> list[tuple[str, ...]]:
        """Return the cells of all rows."""

    def __str__(self) -> str:
        rows = [self._HEADER, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self._HEADER))]
        rows.insert(1, tuple("-" * width for width in widths))
        lines = (
            "  ".join(
                cell.ljust(width) if column in self._TEXT else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
        return "\n".join([self._title(), "", *lines])

    def __repr__(self) -> str:
        name, count = type(self).__name__, len(self.segments)
        return f"<gelu.{name} of {self._title()}: {count} segments, {self.products} products>"

    def _repr_html_(self) -> str:
        def line(tag: str, row: Sequence[str]) -> str:
            cells = (
                f'<{tag} style="text-align: {"left" if column in self._TEXT else "right"}">'
                f"{html.escape(cell)}</{tag}>"
                for column, cell in enumerate(row)
            )
            return f"<tr>{''.join(cells)}</tr>"

        body = "".join(line("td", row) for row in self._rows())
        return (
            f"<table><caption>{html.escape(self._title())}</caption>"
            f"<thead>{line('th', self._HEADER)}</thead><tbody>{body}</tbody></table>"
        )


class Plan(_Table):
    """How a network is run on ciphertexts, segment by segment.

    It prints as a table, and shows as one in notebooks. `segments` has a dictionary for each segment:
    its name, the shapes of its inputs and its output, weight bits, ciphertexts and bytes from client to
    server (`up`) and back (`down`), the server's products mod n^2, and what the client does with the sums
    (`then`). `key_bits`, `key_type` and `batch` are what the plan is for.
    """

    _HEADER = ("segment", "shape", "weights", "ct up", "ct down", "kB up", "kB down", "products", "then")
    _TEXT = (0, 1, 2, 8)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            (
                segment["name"],
                " + ".join(map(_shape, segment["inputs"])) + f" -> {_shape(segment['output'])}",
                f"{segment['weight_bits']} bits",
                str(segment["ciphertexts_up"]),
                str(segment["ciphertexts_down"]),
                f"{segment['bytes_up'] / 1000:.1f}",
                f"{segment['bytes_down'] / 1000:.1f}",
                str(segment["products"]),
                ", ".join(segment["then"]),
            )
            for segment in self.segments
        ]
        (up, down), (bytes_up, bytes_down) = self.ciphertexts, self.bytes
        kilobytes = (f"{bytes_up / 1000:.1f}", f"{bytes_down / 1000:.1f}")
        rows.append(("all", "", "", str(up), str(down), *kilobytes, str(self.products), ""))
        return rows


class HiddenPlan(_Table):
    """How a network is run that is hidden from the client, segment by segment.

    It prints as a table, and shows as one in notebooks. Ciphertexts, products, circuits and transfers of
    labels come before an input is there, for `batch` queries together; an input then takes `online_bytes`
    and `round_trips`. `segments` has a dictionary for each segment: its name, the bits of its sums' ring,
    ciphertexts and bytes from client to server (`up`) and back (`down`), the server's products mod n^2, and
    of one query its AND gates, bytes of their tables and of transfers, and bytes online. A prepared query
    takes `client_bytes` and `server_bytes` of memory.
    """

    _HEADER = (
        "segment",
        "ring",
        "ct up",
        "ct down",
        "products",
        "ANDs",
        "kB of tables",
        "kB of transfers",
        "kB up online",
        "kB down online",
    )
    _TEXT = (0, 1)

    def __init__(self, summary: dict[str, Any], segments: list[dict[str, Any]]) -> None:
        super().__init__(summary, segments)
        self.round_trips: int = summary["round_trips"]
        self.client_bytes: int = summary["client_bytes"]
        self.server_bytes: int = summary["server_bytes"]

    @property
    def ands(self) -> int:
        """AND gates of the circuits of one query."""
        return self._sum("ands")

    @property
    def online_bytes(self) -> tuple[int, int]:
        """Bytes of one input from client to server, and back."""
        return self._sum("online_bytes_up"), self._sum("online_bytes_down")

    def _title(self) -> str:
        return super()._title() + ", hidden from the client"

    def _rows(self) -> list[tuple[str, ...]]:
        counts = ("ciphertexts_up", "ciphertexts_down", "products", "ands")
        sizes = ("table_bytes", "transfer_bytes", "online_bytes_up", "online_bytes_down")

        def cells(of: Callable[[str], int]) -> list[str]:
            return [str(of(name)) for name in counts] + [f"{of(name) / 1000:.1f}" for name in sizes]

        rows = [
            (segment["name"], f"2^{segment['ring_bits']}", *cells(segment.__getitem__))
            for segment in self.segments
        ]
        return [*rows, ("all", "", *cells(self._sum))]
