use std::str::FromStr;

/// A network that can be trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModelName {
    /// LeNet-5: two convolutions, three dense layers.
    Lenet5,
    /// Conv-1: one convolution, one dense layer.
    Conv1,
    /// Dense layers only, with these hidden widths, or those of `--hidden`.
    Mlp(Option<Vec<usize>>),
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown =
            || format!("expected lenet5, conv1, or mlp:WIDTHS (for instance mlp:12), found `{name}`");
        match name.split_once(':') {
            None if name == "lenet5" => Ok(Self::Lenet5),
            None if name == "conv1" => Ok(Self::Conv1),
            None if name == "mlp" => Ok(Self::Mlp(None)),
            Some(("mlp", widths)) => {
                let widths: Result<Vec<usize>, _> = widths.split(',').map(str::parse).collect();
                Ok(Self::Mlp(Some(widths.map_err(|_| unknown())?)))
            }
            _ => Err(unknown()),
        }
    }
}

impl ModelName {
    /// The name without widths.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Lenet5 => "lenet5",
            Self::Conv1 => "conv1",
            Self::Mlp(_) => "mlp",
        }
    }
}
