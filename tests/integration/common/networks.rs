//! Small networks at random, of all that a graph can have: what properties are tried on.

use gelu_net::layers::{AvgPool2dConfig, DenseConfig};
use gelu_net::models::Ranges;
use gelu_net::prelude::*;
use gelu_net::tensor::{Shape, Window};
use ndarray::Array2;
use proptest::prelude::*;
use proptest::strategy::Strategy;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

/// A part of a network, of images or of vectors. One that does not fit what comes before it is left out.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// A convolution with any window, in groups where channels and filters divide; of vectors a dense layer.
    Convolution {
        filters: usize,
        groups: usize,
        bias: bool,
        window: Window,
    },
    /// One filter for each channel.
    Depthwise(Window),
    /// Batch norm by running statistics.
    Norm,
    Activation(Activation),
    AvgPool(AvgPool2dConfig),
    MaxPool(Window),
    GlobalPool,
    /// Layers that keep the shape, plus what went in.
    Residual(Vec<Link>),
    /// Layers of which the first changes the shape, plus a projection of what went in.
    Projection {
        filters: usize,
        stride: [usize; 2],
        links: Vec<Link>,
    },
    /// Branches side by side, the middle one of which is what went in.
    Concat([Link; 2]),
    /// A factor for each channel, made of their means; of vectors one for each feature.
    Gate(Activation),
    /// A sum of an activation and what went in: only the client can make it.
    Shortcut(Activation),
}

/// A layer with weights that keeps the shape, and what follows it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    norm: bool,
    activation: Option<Activation>,
    pool: bool,
}

/// A network that is yet to be built.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    input: Vec<usize>,
    blocks: Vec<Block>,
    /// After flattening.
    head: Vec<Block>,
    softmax: bool,
    seed: u64,
}

type Step = Box<dyn Fn(ModelBuilder) -> ModelBuilder>;

impl Network {
    /// Returns the network with weights, running statistics and inputs at random (`[images, elements]`, from -1 to 1),
    /// calibrated to these.
    pub(crate) fn calibrated(&self, images: usize) -> (Model, Array2<f32>) {
        let mut model = self.build();
        randomize(&mut model, self.seed);
        let images = inputs(&model, images, self.seed);
        calibrate(&mut model, &images);
        (model, images)
    }

    fn build(&self) -> Model {
        let mut steps: Vec<Step> = vec![];
        let mut add = |at: usize, block: &Block| {
            if let Some(step) = block.step(&self.shape(&steps).unwrap(), at) {
                steps.push(step);
                if self.shape(&steps).is_none() {
                    steps.pop();
                }
            }
        };
        self.blocks.iter().enumerate().for_each(|(at, block)| add(at, block));
        steps.push(Box::new(ModelBuilder::flatten));
        let mut add = |at: usize, block: &Block| {
            if let Some(step) = block.step(&self.shape(&steps).unwrap(), at) {
                steps.push(step);
            }
        };
        self.head.iter().enumerate().for_each(|(at, block)| add(self.blocks.len() + at, block));
        if self.made_by(&steps).build().unwrap().parameter_count() == 0 {
            steps.push(Box::new(|builder| builder.dense("last", 3)));
        }
        let builder = self.made_by(&steps);
        let builder = if self.softmax { builder.softmax() } else { builder };
        builder.build().unwrap()
    }

    fn made_by(&self, steps: &[Step]) -> ModelBuilder {
        steps.iter().fold(ModelBuilder::new(&self.input[..]), |builder, step| step(builder))
    }

    /// What comes out of these steps, if they fit each other.
    fn shape(&self, steps: &[Step]) -> Option<Shape> {
        // A graph needs one linear layer.
        let model = self.made_by(steps).flatten().build().ok()?;
        let graph = model.graph();
        Some(graph.shape(graph.nodes().last()?.inputs[0]).clone())
    }
}

impl Block {
    /// What adds the block to a value of a shape, with names of its place.
    fn step(&self, shape: &Shape, at: usize) -> Option<Step> {
        let is_image = shape.dims().len() == 3;
        let channels = shape.dims()[0];
        let name = move |part: &str| format!("{part}{at}");
        Some(match self.clone() {
            Self::Convolution { filters, groups, bias, window } if is_image => {
                let fits = channels.is_multiple_of(groups) && filters.is_multiple_of(groups);
                let groups = if fits { groups } else { 1 };
                let config = Conv2dConfig { out_channels: filters, window, groups, bias };
                Box::new(move |builder| builder.conv2d(&name("conv"), config))
            }
            Self::Convolution { filters, bias, .. } => {
                let config = DenseConfig { out_features: filters, bias };
                Box::new(move |builder| builder.dense(&name("dense"), config))
            }
            Self::Depthwise(window) if is_image => {
                let config = Conv2dConfig { out_channels: channels, window, groups: channels, bias: true };
                Box::new(move |builder| builder.conv2d(&name("depthwise"), config))
            }
            Self::Norm if is_image => Box::new(move |builder| builder.batch_norm2d(&name("norm"))),
            Self::Activation(activation) => Box::new(move |builder| builder.activation(activation)),
            Self::AvgPool(config) if is_image => {
                Box::new(move |builder| builder.avg_pool2d_with(&name("mean"), config))
            }
            Self::MaxPool(window) if is_image => Box::new(move |builder| builder.max_pool2d_with(window)),
            Self::GlobalPool if is_image => Box::new(ModelBuilder::global_avg_pool2d),
            Self::Residual(links) => {
                let shape = shape.clone();
                Box::new(move |builder| {
                    builder.residual(|main| chain(main, &links, &shape, &name("residual")))
                })
            }
            Self::Projection { filters, stride, links } => {
                let shape = shape.clone();
                Box::new(move |builder| {
                    let first = |builder: ModelBuilder, part: &str, kernel: usize| match is_image {
                        true => {
                            let config = Conv2dConfig::new(filters, [kernel; 2]).with_stride(stride);
                            let config = config.with_padding([kernel / 2; 2]).without_bias();
                            builder.conv2d(&name(part), config)
                        }
                        false => builder.dense(&name(part), filters),
                    };
                    let main = |main| {
                        let mut dims = shape.dims().to_vec();
                        dims[0] = filters;
                        let main = first(main, "strided", 3);
                        chain(main, &links, &Shape::from(&dims[..]), &name("projected"))
                    };
                    builder.residual_with(main, |shortcut| {
                        let shortcut = first(shortcut, "shortcut", 1);
                        if is_image { shortcut.batch_norm2d(&name("shortcut_norm")) } else { shortcut }
                    })
                })
            }
            Self::Concat([first, last]) => {
                let shape = shape.clone();
                Box::new(move |builder| {
                    builder.concat([
                        &|branch| chain(branch, std::slice::from_ref(&first), &shape, &name("first")),
                        &|branch| branch,
                        &|branch| chain(branch, std::slice::from_ref(&last), &shape, &name("last")),
                    ])
                })
            }
            Self::Gate(activation) => Box::new(move |builder| {
                builder.gated(|gate| {
                    let gate = if is_image { gate.global_avg_pool2d().flatten() } else { gate };
                    gate.dense(&name("gate"), channels).activation(activation)
                })
            }),
            Self::Shortcut(activation) => {
                Box::new(move |builder| builder.residual(|main| main.activation(activation)))
            }
            _ => return None,
        })
    }
}

/// Layers with weights that keep the shape, one after another.
fn chain(builder: ModelBuilder, links: &[Link], shape: &Shape, name: &str) -> ModelBuilder {
    links.iter().enumerate().fold(builder, |mut builder, (at, link)| {
        let channels = shape.dims()[0];
        if shape.dims().len() == 1 {
            builder = builder.dense(&format!("{name}.{at}"), channels);
        } else {
            let config = Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).without_bias();
            builder = builder.conv2d(&format!("{name}.{at}"), config);
            if link.norm {
                builder = builder.batch_norm2d(&format!("{name}.{at}_norm"));
            }
            if link.pool {
                let window = Window::new([3, 2]).with_padding_sides([[1, 1], [0, 1]]);
                builder = builder.avg_pool2d_with(&format!("{name}.{at}_mean"), window);
            }
        }
        link.activation.into_iter().fold(builder, ModelBuilder::activation)
    })
}

/// Weights at random, and a batch norm's running statistics too.
pub(crate) fn randomize(model: &mut Model, seed: u64) {
    let rng = &mut ChaCha20Rng::seed_from_u64(seed);
    model.initialize(Initializer::KaimingUniform, rng);
    for (_, layer) in model.layers_mut() {
        let Some(statistics) = layer.statistics_mut() else { continue };
        statistics.mean.iter_mut().for_each(|mean| *mean = rng.random_range(-0.5..0.5));
        statistics.variance.iter_mut().for_each(|variance| *variance = rng.random_range(0.3..2.0));
        let parameters = layer.parameters_mut();
        parameters.weight.iter_mut().for_each(|weight| *weight = rng.random_range(-1.2..1.2));
        parameters.bias.iter_mut().for_each(|bias| *bias = rng.random_range(-0.3..0.3));
    }
}

/// Images at random, `[images, elements]` from -1 to 1.
pub(crate) fn inputs(model: &Model, images: usize, seed: u64) -> Array2<f32> {
    let rng = &mut ChaCha20Rng::seed_from_u64(seed ^ 1);
    let elements = model.input_shape().elements();
    Array2::from_shape_fn((images, elements), |_| rng.random_range(-1.0..1.0f32))
}

/// Calibrates a model to images, and leaves values that are hardly alive room for what rounding does to them.
pub(crate) fn calibrate(model: &mut Model, images: &Array2<f32>) {
    let measured = model.measure_ranges(images.view()).unwrap();
    let least = |name: &str| if name == Ranges::INPUT { 0.0 } else { 0.05 };
    let ranges = measured.iter().map(|(name, magnitude)| (name, magnitude.max(least(name))));
    model.set_ranges(Some(ranges.collect()));
}

fn window() -> impl Strategy<Value = Window> {
    let sides = [[0usize..=2, 0..=2], [0..=2, 0..=2]];
    ([1usize..=3, 1..=3], [1usize..=2, 1..=2], [1usize..=2, 1..=2], sides).prop_map(
        |(kernel, stride, dilation, sides)| {
            let window = Window::new(kernel).with_stride(stride).with_dilation(dilation);
            let most = window.extent().map(|extent| extent - 1);
            window
                .with_padding_sides([0, 1].map(|axis| sides[axis].map(|zeros: usize| zeros.min(most[axis]))))
        },
    )
}

fn activation() -> impl Strategy<Value = Activation> {
    let more = [Activation::LeakyRelu { slope: -0.5 }, Activation::Clip { min: -0.25, max: 3.0 }];
    prop::sample::select([&Activation::ALL[..], &more].concat())
}

fn link() -> impl Strategy<Value = Link> {
    (any::<bool>(), prop::option::of(activation()), prop::bool::weighted(0.2))
        .prop_map(|(norm, activation, pool)| Link { norm, activation, pool })
}

fn block() -> impl Strategy<Value = Block> {
    let links = || prop::collection::vec(link(), 0..=2);
    let convolution = (1usize..=4, 1usize..=2, any::<bool>(), window());
    let projection = (1usize..=4, [1usize..=2, 1..=2], links());
    prop_oneof![
        4 => convolution.prop_map(|(filters, groups, bias, window)| Block::Convolution { filters, groups, bias, window }),
        1 => window().prop_map(Block::Depthwise),
        2 => Just(Block::Norm),
        4 => activation().prop_map(Block::Activation),
        2 => (window(), any::<bool>(), any::<bool>()).prop_map(|(window, count_include_pad, ceil_mode)| {
            Block::AvgPool(AvgPool2dConfig { window, count_include_pad, ceil_mode })
        }),
        2 => window().prop_map(Block::MaxPool),
        1 => Just(Block::GlobalPool),
        2 => links().prop_map(Block::Residual),
        2 => projection.prop_map(|(filters, stride, links)| Block::Projection { filters, stride, links }),
        1 => [link(), link()].prop_map(Block::Concat),
        1 => activation().prop_map(Block::Gate),
        1 => activation().prop_map(Block::Shortcut),
    ]
}

/// Any small network.
pub(crate) fn network() -> impl Strategy<Value = Network> {
    let image = (1usize..=3, 3usize..=6, 3usize..=6)
        .prop_map(|(channels, height, width)| vec![channels, height, width]);
    let input = prop_oneof![4 => image, 1 => (2usize..=9).prop_map(|features| vec![features])];
    let blocks = [(0..=5), (0..=2)].map(|count| prop::collection::vec(block(), count));
    (input, blocks, any::<bool>(), any::<u64>()).prop_map(|(input, [blocks, head], softmax, seed)| Network {
        input,
        blocks,
        head,
        softmax,
        seed,
    })
}

/// A residual network with batch norm: a stem, max pooling, a block with an identity, one with a projection.
pub(crate) fn small_resnet() -> Model {
    let conv = |channels: usize| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).without_bias();
    let mut model = ModelBuilder::new([2, 8, 8])
        .conv2d("stem", conv(3))
        .batch_norm2d("stem_norm")
        .relu()
        .max_pool2d_with(Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]))
        .residual(|main| {
            let main = main.conv2d("a1", conv(3)).batch_norm2d("a1_norm").relu();
            main.conv2d("a2", conv(3)).batch_norm2d("a2_norm")
        })
        .relu()
        .residual_with(
            |main| {
                let strided = conv(4).with_stride([2, 2]);
                let main = main.conv2d("b1", strided).batch_norm2d("b1_norm").activation(Activation::Gelu);
                main.conv2d("b2", conv(4)).batch_norm2d("b2_norm")
            },
            |shortcut| {
                let projection = Conv2dConfig::new(4, [1, 1]).with_stride([2, 2]).without_bias();
                shortcut.conv2d("b_shortcut", projection).batch_norm2d("b_shortcut_norm")
            },
        )
        .relu()
        .global_avg_pool2d()
        .flatten()
        .dense("fc", 5)
        .softmax()
        .build()
        .unwrap();
    randomize(&mut model, 21);
    let images = inputs(&model, 32, 5);
    calibrate(&mut model, &images);
    model
}
