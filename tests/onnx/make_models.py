"""Makes the ONNX files that tests/integration/onnx.rs imports: networks with seeded weights, written by both of PyTorch's exporters,
with inputs and the logits that PyTorch computes of them.

    pip install torch onnx onnxscript onnxruntime numpy safetensors
    python tests/onnx/make_models.py

Made with torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2. Widths are small, so that the files are.
"""

import pathlib
import warnings

import numpy
import onnx
import onnxruntime
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F

FOLDER = pathlib.Path(__file__).parent / "models"


class LeNet5(nn.Module):
    """With average pooling, ReLU and softmax."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 8, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(128, 32), nn.Linear(32, 20), nn.Linear(20, 10)

    def forward(self, x):
        x = F.avg_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        return F.softmax(self.fc3(F.relu(self.fc2(torch.sigmoid(self.fc1(x))))), dim=1)


class Vgg(nn.Module):
    """Batch norm, dropout, max pooling with a last incomplete window, adaptive pooling, log softmax."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs):
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

        self.features = nn.Sequential(
            block(3, 6), block(6, 6), nn.MaxPool2d(2), block(6, 10), nn.MaxPool2d(3, 2, ceil_mode=True), block(10, 12)
        )
        self.head = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10), nn.LogSoftmax(1))

    def forward(self, x):
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class Basic(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            # Option A of the paper: every other pixel, and channels of zeros.
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self, widths=(3, 6, 10)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        blocks, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(3):
                blocks.append(Basic(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.layers, self.fc = nn.Sequential(*blocks), nn.Linear(widths[-1], 10)

    def forward(self, x):
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))


class MobileNet(nn.Module):
    """Inverted residuals with ReLU6 and depthwise convolutions."""

    def __init__(self):
        super().__init__()

        def conv(inputs, outputs, kernel, stride=1, groups=1):
            padding = kernel // 2
            layers = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
            return nn.Sequential(layers, nn.BatchNorm2d(outputs), nn.ReLU6())

        def project(inputs, outputs):
            return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

        self.stem = conv(3, 6, 3, stride=2)
        self.first = nn.Sequential(conv(6, 12, 1), conv(12, 12, 3, groups=12), project(12, 6))
        self.second = nn.Sequential(conv(6, 12, 1), conv(12, 12, 3, 2, groups=12), project(12, 8))
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem((x - 0.5) / 0.25)
        x = self.second(x + self.first(x))
        x = F.hardswish(self.dilated(F.pad(x, (0, 1, 1, 0))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class SqueezeExcite(nn.Module):
    """A gate for each channel, SiLU, GELU, a concatenation of branches, leaky ReLU and PReLU."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)
        self.left, self.right = nn.Conv2d(8, 5, (1, 3), padding=(0, 1)), nn.Conv2d(8, 5, (3, 1), padding=(1, 0))
        self.squeeze, self.excite = nn.Linear(10, 4), nn.Linear(4, 10)
        self.prelu, self.fc1, self.fc2 = nn.PReLU(), nn.Linear(10, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.silu(self.stem(x))
        x = x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        x = torch.cat([F.leaky_relu(self.left(x), 0.1), self.prelu(self.right(x))], dim=1)
        gate = F.hardsigmoid(self.excite(F.gelu(self.squeeze(x.mean((2, 3))))))
        x = x * gate.unsqueeze(-1).unsqueeze(-1)
        return self.fc2(F.gelu(self.fc1(x.mean((2, 3)))) * 0.5 + 0.25)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(20, 24), nn.BatchNorm1d(24)
        self.fc2, self.fc3 = nn.Linear(24, 16, bias=False), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.clamp(self.bn1(self.fc1(x)), -0.5, 1.5)
        return self.fc3(torch.square(self.fc2(x)))


# Name, network, shape of an input, opsets for dynamo's and TorchScript's files.
NETWORKS = [
    ("lenet5", LeNet5, (1, 28, 28), 18, 9),
    ("vgg", Vgg, (3, 16, 16), 20, 11),
    ("resnet20", ResNet20, (3, 16, 16), 21, 13),
    ("mobilenet", MobileNet, (3, 16, 16), 23, 17),
    ("squeeze_excite", SqueezeExcite, (3, 12, 12), 18, 16),
    ("mlp", Mlp, (20,), 18, 20),
]


def randomize(net):
    """Batch norms that do something, and weights that keep the spread of what goes through them."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.3, 1.2)


def slim(path):
    """Removes what only describes where in the Python program a node came from."""
    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in [*graph.node, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.save(model, path)


def main():
    warnings.filterwarnings("ignore")
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, kind, shape, dynamo_opset, script_opset) in enumerate(NETWORKS):
        torch.manual_seed(seed)
        net = kind()
        randomize(net)
        net.eval()
        # As pixels are, on a grid of 255, so that fixed point has them nearly exactly.
        inputs = torch.randint(0, 256, (4, *shape)) / 255
        dense = [module for module in net.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            # Outputs that hardly depend on the inputs would agree with anybody's.
            while (outputs := net(inputs)).std(0).max() < 0.1:
                for layer in dense:
                    layer.weight *= 1.5
        save_file(
            {"inputs": inputs.numpy(), "outputs": outputs.numpy()}, FOLDER / f"{name}.safetensors"
        )
        one = inputs[:1]
        dynamo, script = FOLDER / f"{name}.dynamo.onnx", FOLDER / f"{name}.script.onnx"
        torch.onnx.export(
            net, (one,), dynamo, dynamo=True, opset_version=dynamo_opset, external_data=name == "mlp",
            input_names=["pixels"], output_names=["classes"], dynamic_shapes=({0: "batch"},) if name != "vgg" else None,
        )
        # Half of these keep batch norms as nodes, and not all of them have a free batch.
        keep = name in ("resnet20", "mlp", "vgg")
        torch.onnx.export(
            net, (one,), script, dynamo=False, opset_version=script_opset, do_constant_folding=not keep,
            training=torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL,
            input_names=["pixels"], output_names=["classes"],
            dynamic_axes={"pixels": {0: "batch"}} if name != "mobilenet" else None,
        )
        for path in (dynamo, script):
            slim(path)
            session = onnxruntime.InferenceSession(path)
            found = numpy.concatenate([session.run(None, {"pixels": one.numpy()})[0] for one in inputs.split(1)])
            worst = numpy.abs(found - outputs.numpy()).max()
            opset = onnx.load(path).opset_import[0].version
            nodes = sorted({node.op_type for node in onnx.load(path).graph.node})
            spread = outputs.std(0).max()
            print(f"{path.name}: outputs spread {spread:.2f}, opset {opset}, {path.stat().st_size} bytes, onnxruntime {worst:.1e} away: {' '.join(nodes)}")


if __name__ == "__main__":
    main()
