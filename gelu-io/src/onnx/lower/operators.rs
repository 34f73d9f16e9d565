//! Which operators are known, and what to do about others.

use super::{Stop, because};

/// Why a node of another operator is not imported.
pub(super) fn no_such(operator: &str) -> Stop {
    let advice = match operator {
        _ if operator.contains('.') => "only operators of ONNX's own domain are known; export the model anew",
        "ConvTranspose" | "Resize" | "Upsample" => "networks here classify: they do not enlarge images",
        "LSTM" | "GRU" | "RNN" => "networks here have no state",
        "QuantizeLinear"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "QLinearConv"
        | "QLinearMatMul"
        | "ConvInteger"
        | "MatMulInteger" => "export the model before it is quantized: quantization here is its own",
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" => {
            "train with batch norm in its place, which becomes part of a convolution"
        }
        "Sqrt" | "ReduceL2" | "LpNormalization" => {
            "a norm over each input needs it: train with batch norm in its place"
        }
        "Elu" | "Selu" | "Celu" | "Softplus" | "Softsign" | "Mish" | "ThresholdedRelu" => {
            "train with one of the activations that are known, such as Relu, Gelu or HardSwish"
        }
        "ArgMax" | "TopK" => "export the model up to its logits",
        _ => "export the model with operators that are known",
    };
    because("the operator is not known", advice)
}

/// Whether nodes of the operator can be imported at all.
pub(super) fn is_supported(operator: &str) -> bool {
    const SUPPORTED: [&str; 47] = [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "Div",
        "Dropout",
        "Erf",
        "Flatten",
        "Gather",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "Range",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Shape",
        "Sigmoid",
        "Size",
        "Slice",
        "Softmax",
        "Split",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ];
    SUPPORTED.contains(&operator)
}
