"""From a torch module to a network."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

from . import _native
from ._exceptions import ModelError

_LOG = logging.getLogger("gelu")


def compile(
    model: Any,
    example_input: Any,
    *,
    calibration: Any = None,
    name: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
) -> _native.Network:
    """Turn a torch module into a network that runs on ciphertexts.

    The module is exported to ONNX in memory, in evaluation mode, and stays as it is. Torch is needed for
    that, and nowhere else: `pip install gelu-net[torch]`.

    Parameters
    ----------
    model : torch.nn.Module
        A convolutional or dense classifier.
    example_input : torch.Tensor
        An input of the right shape, [N, C, H, W] or [N, F]; the numbers in it do not matter.
    calibration : array or tensor, optional
        Typical inputs of the same shape, float32 or float64, on which the ranges of values are measured.
        Without them nothing can be planned or run but `forward`.
    name : str, optional
        What the network is called at a server; by default the class of the module.
    weight_bits, activation_bits, input_bits : int, optional
        Bits of the integers that it computes on, 2 to 24; 9, 10 and 8 by default.

    Raises
    ------
    ImportError
        When torch is not installed.
    UnsupportedModel
        When a part of the module has no counterpart; `nodes` lists all that have none.
    ModelError
        When torch cannot export the module.

    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("gelu.compile needs torch: pip install gelu-net[torch]") from error
    was_training = bool(getattr(model, "training", False))
    try:
        onnx = _export(torch, model.eval(), example_input)
    finally:
        if was_training:
            model.train()
    if calibration is not None and hasattr(calibration, "detach"):
        calibration = calibration.detach().cpu().numpy()
    return _native.from_onnx(
        onnx,
        calibration=calibration,
        name=name or type(model).__name__.lower(),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        input_bits=input_bits,
    )


def _export(torch: Any, model: Any, example_input: Any) -> bytes:
    """Return the module as the bytes of an ONNX file, by the new exporter or else by the old one."""
    problems = []
    for options in ({"dynamo": True, "external_data": False}, {"dynamo": False}):
        file = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(model, (example_input,), file, verbose=False, **options)
            return file.getvalue()
        except Exception as error:  # Whatever torch raises: the other exporter may know better.
            problems.append(f"{options}: {type(error).__name__}: {error}")
            _LOG.info("torch.onnx.export(%s) failed: %s", options, error)
    raise ModelError("torch.onnx.export cannot export the module: " + "; ".join(problems))
