"""What ResNet-50 costs on ciphertexts, by plans alone: `python gelu-py/benches/resnet50.py [KEY_TYPE]`.

The network is written as ONNX (`pip install onnx`) with random weights of He's scale, for 3x224x224 images.
Whole it is beyond what an import takes, so that it is planned in five pieces that are cut behind blocks. A
block's segments are the same in a piece: the client has the block's input in both. The pieces' sums are the
network's plan.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import gelu

# Stage, blocks, width.
STAGES = ((1, 3, 64), (2, 4, 128), (3, 6, 256), (4, 3, 512))
KEY_BITS = 2048


class Piece:
    """An ONNX graph as it grows."""

    def __init__(self, name: str, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
        self.name, self.shape, self.rng = name, shape, rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "input"

    def op(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Add a node and return its output."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def parameters(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """Add weights and a bias of zeros, which stands for a folded batch norm's."""
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weight = self.rng.standard_normal(shape, dtype=np.float32) * scale
        bias = np.zeros(shape[0], np.float32)
        names = [f"{name}.weight", f"{name}.bias"]
        self.weights += [numpy_helper.from_array(w, n) for w, n in zip((weight, bias), names, strict=True)]
        return names

    def conv(self, x: str, name: str, shape: tuple[int, int, int], stride: int = 1) -> str:
        """Add a convolution of shape (inputs, outputs, extent), padded to keep the extents."""
        inputs, outputs, extent = shape
        parameters = self.parameters(name, (outputs, inputs, extent, extent))
        return self.op("Conv", [x, *parameters], name, strides=[stride] * 2, pads=[extent // 2] * 4)

    def stem(self) -> None:
        """Add what comes before the blocks."""
        x = self.op("Relu", [self.conv(self.last, "conv1", (3, 64, 7), 2)], "relu1")
        self.last = self.op("MaxPool", [x], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def block(self, name: str, inputs: int, width: int, stride: int) -> None:
        """Add a bottleneck, which projects its input where the shape changes."""
        x, outputs = self.last, 4 * width
        y = self.op("Relu", [self.conv(x, f"{name}.conv1", (inputs, width, 1))], f"{name}.relu1")
        y = self.op("Relu", [self.conv(y, f"{name}.conv2", (width, width, 3), stride)], f"{name}.relu2")
        y = self.conv(y, f"{name}.conv3", (width, outputs, 1))
        if inputs != outputs:
            x = self.conv(x, f"{name}.downsample", (inputs, outputs, 1), stride)
        self.last = self.op("Relu", [self.op("Add", [y, x], f"{name}.add")], f"{name}.relu3")

    def head(self) -> None:
        """Add what comes behind the blocks."""
        x = self.op("Flatten", [self.op("GlobalAveragePool", [self.last], "pool")], "flat")
        self.last = self.op("Gemm", [x, *self.parameters("fc", (1000, 2048))], "fc", transB=1)

    def network(self) -> gelu.Network:
        """Return it imported, with ranges measured on two inputs."""
        if self.last != "fc":
            self.last = self.op("Flatten", [self.last], "flat")
        x = self.rng.random((2, *self.shape), dtype=np.float32)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("input", [1, *self.shape]), (self.last, None))
        ]
        graph = helper.make_graph(self.nodes, self.name, ends[:1], ends[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        # Values between blocks have 10 bits, pixels 8.
        bits = 8 if self.shape[0] == 3 else 10
        return gelu.from_onnx(model.SerializeToString(), calibration=x, input_bits=bits, name=self.name)


def pieces() -> list[gelu.Network]:
    """Return the network in pieces."""
    rng = np.random.default_rng(0)
    piece = Piece("stem", (3, 224, 224), rng)
    piece.stem()
    inputs, extent = 64, 56
    found = []
    for stage, blocks, width in STAGES:
        found.append(piece)
        piece = Piece(f"layer{stage}", (inputs, extent, extent), rng)
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 1 else 1
            piece.block(f"layer{stage}.{block}", inputs, width, stride)
            inputs, extent = 4 * width, extent // stride
    piece.head()
    return [piece.network() for piece in [*found, piece]]


def main() -> None:
    """Print plans of one image for each preference."""
    key_types = sys.argv[1:] or ["subgroup", "djn"]
    networks = pieces()
    print(f"{sum(network.parameters for network in networks):,} parameters")
    print("key type  prefer   segments  ct up     ct down  MB up    MB down  products")
    for key_type in key_types:
        for prefer in ("balance", "time", "bytes"):
            plans = [n.plan(key_bits=KEY_BITS, key_type=key_type, prefer=prefer) for n in networks]
            segments = sum(len(plan.segments) for plan in plans)
            (ct_up, ct_down), (up, down) = (
                np.sum([getattr(p, part) for p in plans], axis=0) for part in ("ciphertexts", "bytes")
            )
            products = sum(plan.products for plan in plans)
            print(f"{key_type:8}  {prefer:7}  {segments:8}  {ct_up:8,}  {ct_down:7,}", end="  ")
            print(f"{up / 1e6:7.1f}  {down / 1e6:7.1f}  {products:,}", flush=True)


if __name__ == "__main__":
    main()
