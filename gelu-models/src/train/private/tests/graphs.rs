//! Networks to be trained.

use gelu_layers::{Activation, AvgPool2dConfig, AxisSlice, Conv2dConfig, DenseConfig, SliceConfig};
use gelu_tensor::Window;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::{GraphError, Model, ModelBuilder};

const GELU: Activation = Activation::Gelu;

fn conv(channels: usize, kernel: [usize; 2]) -> Conv2dConfig {
    Conv2dConfig::new(channels, kernel)
}

/// A 3x3 convolution that keeps the image's size.
fn same(channels: usize) -> Conv2dConfig {
    conv(channels, [3, 3]).with_padding([1, 1])
}

fn image(channels: usize) -> ModelBuilder {
    ModelBuilder::new([channels, 6, 5])
}

fn classes(builder: ModelBuilder) -> Model {
    builder.flatten().dense("classes", 3).softmax().build().unwrap()
}

/// One network for everything that can be trained, by what it is there for.
pub(super) fn all() -> Vec<(&'static str, Model)> {
    let vector = || ModelBuilder::new([4]);
    let odd = conv(4, [3, 2]).with_stride([2, 1]).with_padding_sides([[1, 0], [0, 1]]).with_dilation([1, 2]);
    let pool = |kernel: [usize; 2]| Window::new(kernel);
    let border = |kernel: [usize; 2]| {
        AvgPool2dConfig::new(pool(kernel).with_stride([2, 2]).with_padding([1, 1])).excluding_padding()
    };
    vec![
        ("dense", classes(vector().dense("a", 3).tanh())),
        (
            "dense without biases",
            classes(vector().dense("a", DenseConfig::new(3).without_bias()).activation(GELU)),
        ),
        (
            "a sum across flattening",
            classes(
                image(1)
                    .residual_with(
                        |main| main.conv2d("a", same(1)).flatten(),
                        |other| other.flatten().dense("b", 30),
                    )
                    .relu(),
            ),
        ),
        ("an activation first", classes(vector().sigmoid().dense("a", 3).tanh())),
        (
            "dense with a shortcut",
            classes(vector().dense("a", 5).tanh().residual(|b| b.dense("b", 5).tanh())),
        ),
        (
            "a convolution with groups, stride, dilation and unequal padding",
            classes(
                image(2)
                    .conv2d("a", same(2))
                    .activation(GELU)
                    .conv2d("b", odd.with_groups(2).without_bias())
                    .activation(GELU),
            ),
        ),
        (
            "depthwise",
            classes(image(3).conv2d("a", same(3).with_groups(3)).tanh().conv2d("b", conv(2, [1, 1]))),
        ),
        (
            "means of four and of two",
            classes(
                image(1)
                    .conv2d("a", conv(2, [3, 2]))
                    .avg_pool2d("p", [2, 2])
                    .tanh()
                    .conv2d("b", conv(2, [1, 1]).with_padding([0, 0]))
                    .avg_pool2d("q", [1, 2]),
            ),
        ),
        (
            "means of three and of nine",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .avg_pool2d_with("p", pool([3, 1]).with_stride([1, 1]))
                    .tanh()
                    .conv2d("b", same(2))
                    .avg_pool2d("q", [3, 3]),
            ),
        ),
        (
            "means over padding",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .avg_pool2d_with("p", pool([2, 3]).with_stride([2, 2]).with_padding([1, 1]))
                    .tanh()
                    .conv2d("b", same(2))
                    .avg_pool2d_with(
                        "q",
                        pool([2, 2]).with_stride([2, 2]).with_padding_sides([[1, 0], [0, 1]]),
                    ),
            ),
        ),
        (
            "slices",
            classes(
                image(2)
                    .conv2d("a", same(3))
                    .slice(SliceConfig::new(vec![
                        AxisSlice::range(1, 2),
                        AxisSlice { start: 5, step: -2, count: 3 },
                        AxisSlice::range(1, 4),
                    ]))
                    .tanh()
                    .conv2d("b", same(2)),
            ),
        ),
        (
            "means of the pixels of padded windows",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .avg_pool2d_with("p", border([2, 3]).with_ceil_mode())
                    .tanh()
                    .conv2d("b", same(2))
                    .avg_pool2d_with("q", border([2, 2])),
            ),
        ),
        (
            "the mean of a convolution's channels",
            classes(image(1).conv2d("a", same(2)).tanh().conv2d("b", same(3)).global_avg_pool2d()),
        ),
        (
            "means at the client",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .tanh()
                    .avg_pool2d_with("p", pool([3, 2]).with_padding([1, 1]))
                    .conv2d("b", same(2))
                    .tanh()
                    .global_avg_pool2d(),
            ),
        ),
        (
            "a mean first",
            classes(image(2).avg_pool2d("p", [3, 1]).conv2d("a", same(2)).tanh().conv2d("b", same(1))),
        ),
        (
            "maxima",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .max_pool2d([2, 2])
                    .activation(GELU)
                    .conv2d("b", same(2))
                    .max_pool2d_with(pool([2, 2]).with_padding([1, 0])),
            ),
        ),
        (
            "a shortcut",
            classes(
                image(2)
                    .conv2d("a", same(2))
                    .tanh()
                    .residual(|b| b.conv2d("b", same(2)).activation(GELU).conv2d("c", same(2)))
                    .activation(GELU),
            ),
        ),
        (
            "a shortcut with a layer",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .tanh()
                    .residual_with(
                        |b| b.conv2d("b", same(2).with_stride([2, 2])).tanh().conv2d("c", same(3)),
                        |b| b.conv2d("d", conv(3, [1, 1]).with_stride([2, 2]).without_bias()),
                    )
                    .activation(GELU),
            ),
        ),
        (
            "two layers of one value",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .tanh()
                    .residual_with(|b| b.conv2d("b", same(2)), |b| b.conv2d("c", same(2).with_groups(2)))
                    .activation(GELU),
            ),
        ),
        (
            "a layer of the input beside one of activations",
            classes(
                image(1)
                    .residual_with(
                        |b| b.conv2d("a", same(2)).tanh().conv2d("b", same(2)),
                        |b| b.conv2d("c", same(2)),
                    )
                    .activation(GELU),
            ),
        ),
        (
            "a mean of four beside one of nine",
            classes(
                image(1)
                    .conv2d("a", conv(2, [1, 1]))
                    .tanh()
                    .residual_with(
                        |b| {
                            b.conv2d("b", same(2))
                                .avg_pool2d_with("p", pool([3, 3]).with_stride([2, 2]).with_padding([1, 1]))
                        },
                        |b| {
                            b.conv2d("c", same(2)).avg_pool2d_with(
                                "q",
                                pool([2, 2]).with_stride([2, 2]).with_padding_sides([[0, 0], [0, 1]]),
                            )
                        },
                    )
                    .activation(GELU),
            ),
        ),
        (
            "a mean beside a stride",
            classes(
                image(1)
                    .conv2d("a", conv(2, [1, 2]))
                    .tanh()
                    .residual_with(
                        |b| b.conv2d("b", same(2).with_stride([2, 2])),
                        |b| b.conv2d("c", conv(2, [1, 1])).avg_pool2d("p", [2, 2]),
                    )
                    .activation(GELU),
            ),
        ),
        (
            "a mean of a sum",
            classes(
                image(1)
                    .conv2d("a", same(1))
                    .tanh()
                    .residual_with(|b| b.conv2d("b", same(2)), |b| b.conv2d("c", conv(2, [1, 1])))
                    .avg_pool2d("p", [2, 2])
                    .activation(GELU),
            ),
        ),
        (
            "a layer that is read twice",
            classes(image(1).conv2d("a", same(2)).residual(|b| b.conv2d("b", same(2))).activation(GELU)),
        ),
        (
            "a layer that is added to itself",
            classes(image(1).conv2d("a", same(2)).residual(|b| b).activation(GELU)),
        ),
        (
            "a layer that is read with its mean",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .concat([&|b| b.tanh().max_pool2d([2, 2]), &|b| b.avg_pool2d("p", [2, 2])])
                    .activation(GELU),
            ),
        ),
        (
            "a layer that is read twice under another shape",
            classes(
                vector()
                    .dense("a", 3)
                    .flatten()
                    .residual(|b| b.flatten().tanh())
                    .residual(|b| b.dense("b", 3)),
            ),
        ),
        (
            "concatenation",
            classes(
                image(1)
                    .concat([&|b| b.conv2d("a", same(2)).tanh(), &|b| b, &|b| b.conv2d("b", same(1))])
                    .activation(GELU)
                    .conv2d("c", conv(2, [1, 1])),
            ),
        ),
        ("layers and means of nothing but padding", {
            let apart = Window::new([2, 2]).with_dilation([2, 2]).with_padding([1, 1]);
            let layer = Conv2dConfig { window: apart, ..conv(2, [1, 1]) };
            classes(
                ModelBuilder::new([2, 1, 1])
                    .conv2d("first", layer)
                    .tanh()
                    .conv2d("a", conv(2, [1, 1]))
                    .tanh()
                    .residual(|b| b.conv2d("b", layer).tanh().avg_pool2d_with("p", apart))
                    .residual_with(|b| b.conv2d("c", layer), |b| b.conv2d("d", conv(2, [1, 1])))
                    .residual(|b| b.tanh().conv2d("e", layer).avg_pool2d_with("q", apart)),
            )
        }),
        (
            "a gate",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .activation(GELU)
                    .gated(|g| g.global_avg_pool2d().flatten().dense("b", 2).sigmoid())
                    .conv2d("c", same(1)),
            ),
        ),
        (
            "a product",
            classes(
                image(1)
                    .conv2d("a", same(2))
                    .gated(|g| g.conv2d("b", same(2)).tanh())
                    .conv2d("c", same(1))
                    .tanh(),
            ),
        ),
        (
            "a softmax of a mean",
            image(1)
                .conv2d("a", same(2))
                .activation(GELU)
                .conv2d("b", same(3))
                .global_avg_pool2d()
                .flatten()
                .softmax()
                .build()
                .unwrap(),
        ),
    ]
}

/// Two branches with a layer each, maybe a layer and an activation before that of the first, and means after them.
#[derive(Clone)]
struct Projection {
    layers: [Conv2dConfig; 2],
    activation: Option<Activation>,
    means: [Option<Window>; 2],
}

/// One step of a random network.
#[derive(Clone)]
enum Block {
    Conv(Conv2dConfig),
    AvgPool(AvgPool2dConfig),
    MaxPool(Window),
    Activation(Activation),
    Shortcut(Conv2dConfig, Activation),
    Projection(Box<Projection>),
    Concat(Conv2dConfig, Window),
    Gate,
    Twice,
}

fn build(
    input: [usize; 3],
    blocks: &[Block],
    (hidden, count): (Option<usize>, usize),
) -> Result<Model, GraphError> {
    let mut builder = ModelBuilder::new(input);
    let mut channels = input[0];
    for (at, block) in blocks.iter().enumerate() {
        let name = |part: &str| format!("{part}{at}");
        builder = match block {
            Block::Conv(config) => {
                channels = config.out_channels;
                builder.conv2d(&name("conv"), *config)
            }
            Block::AvgPool(config) => builder.avg_pool2d_with(&name("pool"), *config),
            Block::MaxPool(window) => builder.max_pool2d_with(*window),
            Block::Activation(activation) => builder.activation(*activation),
            Block::Shortcut(config, activation) => {
                builder.residual(|b| b.conv2d(&name("inner"), *config).activation(*activation))
            }
            Block::Projection(projection) => {
                let Projection { layers: [main, shortcut], activation, means } = &**projection;
                channels = main.out_channels;
                let pooled = |b: ModelBuilder, part: &str, pool: Option<Window>| match pool {
                    Some(window) => b.avg_pool2d_with(&name(part), window),
                    None => b,
                };
                builder.residual_with(
                    |b| {
                        let b = match activation {
                            Some(activation) => b.conv2d(&name("first"), same(2)).activation(*activation),
                            None => b,
                        };
                        pooled(b.conv2d(&name("main"), *main), "main_mean", means[0])
                    },
                    |b| pooled(b.conv2d(&name("shortcut"), *shortcut), "shortcut_mean", means[1]),
                )
            }
            Block::Concat(config, window) => {
                channels += config.out_channels;
                builder.concat([&|b: ModelBuilder| b.conv2d(&name("left"), *config), &|b: ModelBuilder| {
                    b.avg_pool2d_with(&name("right"), *window)
                }])
            }
            Block::Gate => {
                builder.gated(|g| g.global_avg_pool2d().flatten().dense(&name("gate"), channels).sigmoid())
            }
            Block::Twice => builder.residual(|b| b),
        };
    }
    builder = builder.flatten();
    if let Some(hidden) = hidden {
        builder = builder.dense("hidden", hidden).tanh();
    }
    builder.dense("classes", count).softmax().build()
}

/// A random network, of blocks that fit each other.
pub(super) fn random(seed: u64) -> Model {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let input: [usize; 3] = if rng.random_bool(0.2) {
        [rng.random_range(1..6), 1, 1]
    } else {
        [rng.random_range(1..3), rng.random_range(3..6), rng.random_range(3..6)]
    };
    let hidden = rng.random_bool(0.4).then(|| rng.random_range(1..5));
    let head = (hidden, rng.random_range(2..5));
    let (mut blocks, wanted) = (vec![], rng.random_range(0..5));
    for _ in 0..40 {
        if blocks.len() >= wanted {
            break;
        }
        blocks.push(block(&mut rng));
        if build(input, &blocks, head).is_err() {
            blocks.pop();
        }
    }
    build(input, &blocks, head).unwrap()
}

fn block(rng: &mut ChaCha20Rng) -> Block {
    let activation = |rng: &mut ChaCha20Rng| Activation::ALL[rng.random_range(0..Activation::ALL.len())];
    match rng.random_range(0..12) {
        0..=2 => Block::Conv(convolution(rng)),
        3 => Block::AvgPool(AvgPool2dConfig {
            window: window(rng),
            count_include_pad: rng.random_bool(0.5),
            ceil_mode: rng.random_bool(0.3),
        }),
        4 => Block::MaxPool(window(rng)),
        5 | 6 => Block::Activation(activation(rng)),
        7 => {
            let channels = rng.random_range(1..3);
            Block::Shortcut(same(channels), activation(rng))
        }
        8 | 9 => {
            let (channels, stride) = (rng.random_range(1..4), [1, 1, 2][rng.random_range(0..3)]);
            let main = same(channels).with_stride([stride; 2]);
            let mut means = [None; 2];
            let shortcut = match rng.random_range(0..3) {
                0 if stride == 2 => {
                    means[1] = Some(Window::new([2, 2]).with_stride([2, 2]).with_padding_sides([[0, 1]; 2]));
                    same(channels)
                }
                1 => {
                    let window = Window::new([3, 2]).with_padding_sides([[1, 1], [0, 1]]);
                    means = [Some(window); 2];
                    conv(channels, [1, 1]).with_stride([stride; 2])
                }
                _ => conv(channels, [1, 1]).with_stride([stride; 2]).without_bias(),
            };
            let activation = rng.random_bool(0.5).then(|| activation(rng));
            Block::Projection(Box::new(Projection { layers: [main, shortcut], activation, means }))
        }
        10 => {
            let window = Window::new([3, 3]).with_padding([1, 1]);
            Block::Concat(same(rng.random_range(1..3)), window)
        }
        _ => [Block::Gate, Block::Twice][rng.random_range(0..2)].clone(),
    }
}

fn convolution(rng: &mut ChaCha20Rng) -> Conv2dConfig {
    let groups = [1, 1, 2][rng.random_range(0..3)];
    let config = Conv2dConfig { window: window(rng), ..conv(groups * rng.random_range(1..3), [1, 1]) };
    let config = config.with_groups(groups);
    if rng.random_bool(0.3) { config.without_bias() } else { config }
}

fn window(rng: &mut ChaCha20Rng) -> Window {
    let mut two = |range: std::ops::Range<usize>| [(); 2].map(|()| rng.random_range(range.clone()));
    let (kernel, stride, dilation) = (two(1..4), two(1..3), two(1..3));
    let padding = [two(0..2), two(0..2)];
    Window::new(kernel).with_stride(stride).with_dilation(dilation).with_padding_sides(padding)
}
