//! Table 5: time of one inference between machines in different places.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use gelu_io::digits::SampleDigits;
use gelu_io::session::{ClientSession, StepRecord, serve};
use gelu_io::transport::{InProcess, Transport};
use gelu_io::weights::WeightsFile;
use gelu_layers::Initializer;
use gelu_models::infer::{Client, Server, ServerModel};
use gelu_models::plan::Quantization;
use gelu_models::zoo::{self, Network, Setting as NetworkSetting};
use gelu_models::{Model, Weights};
use gelu_service::{
    ClientSecurity, Limits, Modes, Patience, Remote, ServerSecurity, Service, TrialAuthority,
};
use gelu_tensor::paillier::SecretKey;
use ndarray::{Array2, Axis};
use rand::rngs::ChaCha20Rng;
use rand::{RngExt, SeedableRng};

use super::{KEYS, KEYS_NOTE, Part, SUBGROUP_2048, Setting, median};
use crate::link::Link;
use crate::report::digits;
use crate::results::{Figure, Findings, Row, Table};

/// The paper's environments, as links.
const PLACES: [(&str, Link); 3] = [
    ("cloud-local", Link { rate: 100e6, delay: Duration::from_millis(20) }),
    ("cloud-cloud", Link { rate: 10e9, delay: Duration::from_micros(100) }),
    ("local-local", Link { rate: 1e9, delay: Duration::from_micros(200) }),
];

/// A network, and what the paper has for it at each place.
struct Measured {
    title: &'static str,
    model: Model,
    /// Inputs, `[inputs, elements]`.
    images: Array2<f32>,
    paper: Option<[[f64; 2]; 3]>,
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let command = setting.command(Part::Table5);
    let mut overlaps = vec![];
    for network in networks()? {
        let Measured { title, model, images, paper } = network;
        let quantization =
            Quantization { layer_bits: Some(model.layer_bits().clone()), ..Quantization::default() };
        let model = Arc::new(ServerModel::new(model, quantization));
        for (keys, parameters) in KEYS {
            // What the paper does not have is measured with one kind of key.
            if paper.is_none() && parameters != SUBGROUP_2048 {
                continue;
            }
            let key = Arc::new(setting.key(parameters)?);
            for (place, (name, link)) in PLACES.into_iter().enumerate() {
                setting.progress(Part::Table5, &format!("{title}, {name}, {keys}"));
                let one = images.select(Axis(0), &[0]);
                let run = over(link, &model, &key, (&one, setting.repeats()))?;
                let figure = |[value, deviation]: [f64; 2]| Figure::with_deviation(value, deviation);
                findings.rows.push(Row {
                    label: format!("{title}, {name}, {keys}"),
                    unit: "s".to_owned(),
                    paper: paper.map(|paper| figure(paper[place])),
                    here: Some(run.seconds.into()),
                    command: command.clone(),
                });
                if parameters == SUBGROUP_2048 && name == "cloud-local" {
                    overlaps.push(overlap(title, "one", &run));
                    let run = over(link, &model, &key, (&images, 1))?;
                    overlaps.push(overlap(title, &images.nrows().to_string(), &run));
                }
            }
        }
    }
    let header = [
        "network",
        "images, two in flight",
        "s",
        "s in a process",
        "MB up",
        "MB down",
        "s of transfer",
        "s the client is busy",
        "s the server is busy",
        "in all / largest",
    ];
    findings.tables.push(Table {
        title: "Over the slowest link, with a subgroup key: what takes how long, and how much of it goes on at once".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        rows: overlaps,
    });
    findings.notes = notes(setting);
    Ok(findings)
}

impl Setting {
    /// Runs of one image.
    fn repeats(&self) -> usize {
        if self.quick { 3 } else { 9 }
    }
}

fn networks() -> anyhow::Result<Vec<Measured>> {
    let digits = SampleDigits { seed: 3, per_digit: 1 }.draw();
    let digits = digits.images().to_inputs().into_shape_with_order((digits.len(), 28 * 28))?;
    let rng = &mut ChaCha20Rng::seed_from_u64(5);
    let mut network = |title, network: Network, bundled: Option<&[u8]>, paper| -> anyhow::Result<Measured> {
        let mut model = network.build(&NetworkSetting::default())?;
        match bundled {
            Some(bytes) => drop(model.load(&Weights::parse(bytes, Path::new(title))?)?),
            None => {
                model.initialize(Initializer::KaimingUniform, rng);
                model.calibrate(digits.view())?;
            }
        }
        Ok(Measured { title, model, images: digits.clone(), paper: Some(paper) })
    };
    let conv1 = include_bytes!("../../../models/conv1.safetensors");
    let lenet5 = include_bytes!("../../../models/lenet5.safetensors");
    let mut networks = vec![
        network("Dense(12)", Network::Mlp(vec![12]), None, [[0.381, 0.002], [0.156, 0.005], [0.281, 0.01]])?,
        network("Dense(300)", Network::Mlp(vec![300]), None, [[147.5, 9.8], [59.7, 1.9], [107.4, 3.5]])?,
        network("Conv-1", Network::Conv1, Some(conv1), [[91.3, 5.4], [37.5, 1.6], [67.5, 2.8]])?,
        network("LeNet-5", Network::Lenet5, Some(lenet5), [[126.7, 6.3], [47.5, 1.2], [85.5, 2.1]])?,
    ];
    let mut model = zoo::resnet20(10)?;
    model.initialize(Initializer::KaimingUniform, rng);
    let images = Array2::from_shape_fn((4, 3 * 32 * 32), |_| rng.random_range(0.0..1.0_f32));
    model.calibrate(images.view())?;
    networks.push(Measured { title: "ResNet-20", model, images, paper: None });
    Ok(networks)
}

/// What a run took.
struct Run {
    seconds: f64,
    /// The same with both sides in one process, and what each of them is busy for.
    alone: f64,
    client: f64,
    server: f64,
    bytes: [usize; 2],
    /// What the link takes: for the bytes of the direction with more, and to and fro for each answer.
    transfer: f64,
}

/// Runs images one by one, two of them in flight, over a link; the median of the repeats.
fn over(
    link: Link,
    model: &Arc<ServerModel>,
    key: &Arc<SecretKey>,
    (images, repeats): (&Array2<f32>, usize),
) -> anyhow::Result<Run> {
    let (client_end, server_end) = InProcess::pair();
    let server = Server::new(Arc::clone(model)).on(key.public_key().backend());
    let serving = thread::spawn(move || serve(server_end, server, &mut rand::rng()));
    let alone = classify(client_end, key, images)?;
    let (steps, ended) = serving.join().map_err(|_| anyhow!("the server has panicked"))?;
    ended?;
    let server = measured(&steps).map(|step| step.seconds).sum();

    let authority = TrialAuthority::new(1)?;
    let service = Service::new(Limits::default()).with_model("m", Arc::clone(model), Modes::revealed())?;
    let credentials = authority.server(&["localhost".to_owned()])?.credentials()?;
    let running = service.start("localhost:0", &ServerSecurity::Tls(credentials))?;
    let proxy = link.proxy(running.address())?;
    let own = authority.client("paper")?.credentials()?;
    let security = ClientSecurity::Tls { credentials: own, known: None };
    let url = format!("https://localhost:{}", proxy.port());
    let remote = Remote::new(&url, &security, Patience::default())?;
    let runs = (0..repeats).map(|_| classify(remote.open("m")?, key, images));
    let runs = runs.collect::<anyhow::Result<Vec<_>>>()?;
    running.stop();
    let bytes = runs.first().map(|run| run.bytes).unwrap_or_default();
    let answers = runs.first().map_or(0, |run| run.answers);
    let carried = bytes.map(|bytes| link.seconds(bytes));
    Ok(Run {
        seconds: median(runs.iter().map(|run| run.seconds).collect()),
        alone: alone.seconds,
        client: alone.client,
        server,
        bytes,
        transfer: carried[0].max(carried[1]) + answers as f64 * 2.0 * link.delay.as_secs_f64(),
    })
}

/// A session of a client.
struct Session {
    seconds: f64,
    client: f64,
    bytes: [usize; 2],
    answers: usize,
}

/// Images one by one, without what comes before the first of them.
fn classify(
    transport: impl Transport,
    key: &Arc<SecretKey>,
    images: &Array2<f32>,
) -> anyhow::Result<Session> {
    let rng = &mut rand::rng();
    let mut session = ClientSession::open(transport, Client::new(Arc::clone(key), 1), rng)?;
    // The tables of the key are made with the first.
    session.infer(images.select(Axis(0), &[0]).view(), rng)?;
    let start = Instant::now();
    session.infer_all(images.axis_chunks_iter(Axis(0), 1), rng, |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let segments = session.client().plan().context("expected a plan")?.segments().len();
    let steps = session.finish(rng)?;
    Ok(Session {
        seconds,
        client: measured(&steps).map(|step| step.seconds).sum(),
        bytes: [
            measured(&steps).map(|step| step.bytes_out).sum(),
            measured(&steps).map(|step| step.bytes_in).sum(),
        ],
        // Two images in flight wait together.
        answers: segments * images.nrows().div_ceil(2),
    })
}

/// The steps on images after the first.
fn measured(steps: &[StepRecord]) -> impl Iterator<Item = &StepRecord> {
    steps.iter().filter(|step| step.batch.is_some_and(|batch| batch > 0))
}

fn overlap(title: &str, images: &str, run: &Run) -> Vec<String> {
    let Run { seconds, alone, client, server, bytes: [up, down], transfer } = *run;
    let largest = transfer.max(client).max(server);
    let mut row = vec![title.to_owned(), images.to_owned()];
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let figures =
        [seconds, alone, megabytes(up), megabytes(down), transfer, client, server, seconds / largest];
    row.extend(figures.map(digits));
    row
}

fn notes(setting: &Setting) -> Vec<String> {
    vec![
        format!(
            "Client and server are the network service of `gelu serve` and `gelu client`, over TLS 1.3 with certificates on both sides, \
             in one process on this machine. A proxy between them lets through what a link does: 100 Mbit/s and 20 ms each way for \
             cloud-local, 10 Gbit/s and 0.1 ms for cloud-cloud, 1 Gbit/s and 0.2 ms for local-local. The medians of {} inferences of one image \
             in an open session, the key's tables made before.",
            setting.repeats()
        ),
        "Both sides share this machine's threads, so that \"cloud\" and \"local\" differ by the link alone; a proxy's threads wake late by \
         some ten microseconds, which is felt at 0.1 ms."
            .to_owned(),
        "Conv-1 and LeNet-5 have the weights that gelu has for them, of 3 and 2 bits, the others first weights of 8 bits: times depend on \
         weights by their bits alone. The paper does not state its links, and has one time for one inference. ResNet-20 \
         (3x32x32, ten classes) is beyond the paper."
            .to_owned(),
        KEYS_NOTE.to_owned(),
        "Transfer is what the link takes for the bytes of the direction that has more, and its delay to and fro for each answer that is \
         waited for. A quotient near 1 says that encryption, transfer and computing go on at once."
            .to_owned(),
    ]
}
