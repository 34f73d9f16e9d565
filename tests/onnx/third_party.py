"""Imports the ONNX files of installed packages and compares logits with ONNX Runtime's; third_party.sh runs it.

`gelu infer` gives logits that were computed on ciphertexts. So that these are as good as floating-point ones, weights and
activations have 20 bits here, and keys are short: what is compared is the import, and arithmetic without rounding errors.
"""

import collections
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

GELU = shlex.split(os.environ.get("GELU", "cargo run --release --quiet --"))
COUNT = int(os.environ.get("COUNT", "2"))
BITS = ["--weight-bits", "20", "--activation-bits", "20", "--input-bits", "20", "--key-bits", "1024"]
# Graphs of fewer nodes are no networks, but test cases of single operators.
LEAST_NODES = 10
# The largest distance of two logits, over the largest logit.
TOLERANCE = 1e-3
IMPORT_SECONDS, INFER_SECONDS = 300, 900


def gelu(*arguments, seconds):
    """The JSON object that the command prints, or what it says instead."""
    try:
        run = subprocess.run([*GELU, *map(str, arguments)], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None, f"error: not done after {seconds} s"
    if run.returncode != 0:
        said = [line for line in run.stderr.splitlines() if line.strip() and not line.startswith("note: ")]
        return None, "\n".join(said) or f"error: exit code {run.returncode} and no message"
    return json.loads(run.stdout), ""


def missing(error):
    """What an error names: operators that are not known, and nodes of others with what is wrong with them."""
    nodes = re.findall(r"^  node `.*?` \(([^)]+)\): ([^;\n]*)", error, re.M)
    unknown = collections.Counter(name for name, reason in nodes if reason == "the operator is not known")
    refused = collections.Counter(f"{name}: {reason}" for name, reason in nodes if name not in unknown)
    return ", ".join(
        [f"{count} {name}" for name, count in unknown.items()]
        + [f"{count} {name if len(name) < 90 else name[:87] + '...'}" for name, count in refused.items()]
    )


def expected(file, inputs, report):
    """The file's logits: its output, or what the softmax before that reads."""
    import onnx
    import onnxruntime

    model = onnx.load(file)
    output = model.graph.output[0].name
    softmax = ("Softmax", "LogSoftmax")
    layers = {one["node"] for one in report["operators"] if one["operator"] in softmax and "layer" in one["became"]}
    for node in model.graph.node:
        # Nodes without names go by those of their outputs.
        if node.op_type in softmax and (node.name or node.output[0]) in layers:
            output = node.input[0]
    if output != model.graph.output[0].name:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    declared = session.get_inputs()[0]
    # The importer has channels first, where the file has them last.
    channels, *size = inputs.shape[1:]
    if declared.shape[1:] == [*size, channels] and declared.shape[1:] != [channels, *size]:
        inputs = inputs.transpose(0, 2, 3, 1)
    # One by one: the file may be for batches of one.
    return [session.run([output], {declared.name: row[None]})[0].reshape(-1) for row in inputs]


def compare(file, imported, report, work):
    """Whether our logits are ONNX Runtime's (None where there is nothing to compare), and what there is to say."""
    try:
        import numpy

        shape = report["input"]["shape"]
        inputs = numpy.random.default_rng(0).random((COUNT, *shape), dtype=numpy.float32)
        theirs = numpy.stack(expected(file, inputs, report))
    except Exception as error:  # Whatever ONNX Runtime says of a file is one line of the table.
        return None, f"ONNX Runtime gives nothing to compare with: {(str(error) or repr(error)).splitlines()[0]}"
    numpy.save(work / "inputs.npy", inputs)
    arguments = ["--dataset", work / "inputs.npy", "--count", COUNT, "--logits", "--json"]
    found, error = gelu("infer", "--model", imported, *arguments, *BITS, seconds=INFER_SECONDS)
    if found is None:
        return None, f"infer: {error}"
    ours = numpy.array([image["logits"] for image in found["logits"]])
    if ours.shape != theirs.shape:
        return None, f"infer: logits {ours.shape}, ONNX Runtime's {theirs.shape}"
    distance, largest = float(abs(ours - theirs).max()), float(abs(theirs).max())
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    return distance <= TOLERANCE * largest, (
        f"{distance:.1e} apart, of up to {largest:.3g}; same class for {same} of {COUNT}; "
        f"{found['seconds_per_image']:.0f} s each"
    )


def nodes(file):
    """How many nodes a file has; none where that cannot be read."""
    try:
        import onnx

        return len(onnx.load(file, load_external_data=False).graph.node)
    except Exception:
        return None


def test(file, label, shape, work):
    """A row of the table: file, verdict, what there is to say."""
    imported = work / "imported.safetensors"
    found, error = gelu("import", file, "--out", imported, "--json", seconds=IMPORT_SECONDS)
    if found is None and "expected one input of known extents" in error and shape:
        arguments = ["--input", shape, "--out", imported, "--json"]
        found, error = gelu("import", file, *arguments, seconds=IMPORT_SECONDS)
    if found is None:
        print(f"\n{label}\n{error}", flush=True)
        return label, "not imported", missing(error) or error.splitlines()[0].replace(f"{file}: ", "")
    fits, text = compare(file, imported, found["report"], work)
    verdict = {True: "same logits", False: "OTHER LOGITS", None: "imported, not compared"}[fits]
    print(f"\n{label}\n{found['parameters']} parameters; {verdict}: {text}", flush=True)
    return label, verdict, text.splitlines()[0]


def main():
    work = pathlib.Path(sys.argv[1])
    rows, skipped = [], collections.Counter()
    for package in sys.argv[2:]:
        name, _, shape = package.partition("=")
        folder = work / "packages" / name
        if not folder.exists():
            rows.append((name, "not installed", ""))
            continue
        files = sorted(folder.rglob("*.onnx"))
        if not files:
            rows.append((name, "no ONNX files", ""))
        for file in files:
            count = nodes(file)
            if count is not None and count < LEAST_NODES:
                skipped[name] += 1
                continue
            rows.append(test(file, f"{name}/{file.name}", shape, work))

    header = ("file", "verdict", "logits, or what cannot be imported")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(2)]
    print()
    for label, verdict, text in [header, *rows]:
        print(f"{label:{widths[0]}}  {verdict:{widths[1]}}  {text}".rstrip())
    for name, count in skipped.items():
        print(f"of {name}, {count} files of fewer than {LEAST_NODES} nodes were left out")
    return 1 if any(verdict == "OTHER LOGITS" for _, verdict, _ in rows) else 0


sys.exit(main())
