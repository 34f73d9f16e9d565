//! `gelu serve --train` and `gelu client train`, as several users run them: the weights are those of `gelu train`, bit for
//! bit, whoever is killed.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use gelu_io::weights::WeightsFile;
use gelu_models::Weights;
use gelu_service::Ledger;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use serde_json::Value;

use crate::common::server::Server;
use crate::common::{data, fail, gelu, succeed};

/// What server and local run have in common.
const RUN: [&str; 8] = ["--clients", "3", "--epochs", "6", "--batch-size", "4", "--lr", "0.1"];

/// How often the server is killed in a run of 72 iterations.
const SERVER_KILLS: u64 = 20;

/// A network for the table, the server's options, and the weights that the clear run on integers comes to.
fn network(data: &Path) -> (String, Weights) {
    let path = |name: &str| data.join(name).display().to_string();
    let [net, fixed] = ["net.safetensors", "fixed.safetensors"].map(path);
    let first = ["train", "--clear", "--model", "mlp:6", "--dataset", "iris", "--epochs", "1", "--out", &net];
    succeed(&first, data);
    gelu_io::files::write_secret(&data.join("passphrase"), b"correct horse\n").unwrap();
    let same = ["train", "--clear", "--fixed", "--model", &net, "--dataset", "iris", "--out", &fixed];
    succeed(&[&same[..], &RUN].concat(), data);
    (net, Weights::read(&fixed).unwrap())
}

fn serve<'a>(net: &'a str, state: &'a str) -> Vec<&'a str> {
    let own = ["--insecure", "--train", "--model", net, "--state", state, "--key-bits", "1024"];
    [&own[..], &RUN].concat()
}

fn client(server: &str, part: usize, data: &Path) -> Child {
    let state = data.join(format!("client-{part}")).display().to_string();
    let passphrase = data.join("passphrase").display().to_string();
    // One keeps its state under a passphrase.
    let sealed = if part == 1 { vec!["--passphrase-file", &passphrase] } else { vec![] };
    Command::new(env!("CARGO_BIN_EXE_gelu"))
        .args(["client", "train", "--server", server, "--insecure", "--dataset", "iris"])
        .args(["--part", &format!("{part}/3"), "--state", &state, "--json"])
        .args(sealed)
        .env("GELU_DATA", data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn report(output: Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn clients_train_with_a_server_as_one_command_does() {
    let data = data();
    let (net, expected) = network(data.path());
    let state = data.path().join("state").display().to_string();
    let server = Server::start(&serve(&net, &state));
    let url = server.url("http");
    let clients: Vec<Child> = (1..=3).map(|part| client(&url, part, data.path())).collect();
    let mut images = 0;
    for (place, client) in (1..).zip(clients) {
        let report = report(client.wait_with_output().unwrap());
        assert_eq!((&report["client"], &report["clients"]), (&Value::from(place), &3.into()));
        assert_eq!(report["inputs"], 16);
        images += report["images"].as_u64().unwrap();
        assert!(
            report["bytes_up"].as_u64() > Some(50_000) && report["accuracy"].as_f64() > Some(0.4),
            "{report}"
        );
    }
    assert_eq!(images, 288);
    let written = Weights::read(Path::new(&state).join("net.safetensors")).unwrap();
    assert_eq!(written.tensors, expected.tensors);

    let to = ["--server", &url, "--insecure"];
    let table = succeed(&[&["client", "models"], &to[..]].concat(), data.path());
    assert!(table.contains("3 of 3") && table.contains("72 of 72"), "{table}");
    // Who comes again hears that the run is complete; who comes late, that there is no place.
    let again = report(client(&url, 2, data.path()).wait_with_output().unwrap());
    assert_eq!((&again["client"], &again["iterations"]), (&2.into(), &72.into()));
    let late = ["--dataset", "iris", "--state", &data.path().join("late").display().to_string()];
    let error = fail(&[&["client", "train"], &to[..], &late].concat(), data.path(), 1);
    assert!(error.contains("all 3 places are taken"), "{error}");
    let sealed = [
        "--dataset",
        "iris",
        "--part",
        "1/3",
        "--state",
        &data.path().join("client-1").display().to_string(),
    ];
    let error = fail(&[&["client", "train"], &to[..], &sealed].concat(), data.path(), 1);
    assert!(error.contains("is under a passphrase"), "{error}");
    server.stop();

    let shown = succeed(&["state", "show", "--state", &state], data.path());
    assert!(shown.contains("net") && shown.contains("72"), "{shown}");
    // The weights can be used at once.
    let infer = [
        "infer",
        "--model",
        &format!("{state}/net.safetensors"),
        "--dataset",
        "iris",
        "--key-bits",
        "1024",
        "--json",
    ];
    let found: Value = serde_json::from_str(&succeed(&infer, data.path())).unwrap();
    assert!(found["accuracy"].as_f64() > Some(0.8), "{found}");
    let own = serve(&net, &state).into_iter().map(|argument| if argument == "6" { "7" } else { argument });
    let other: Vec<&str> = ["serve", "--listen", "127.0.0.1:0"].into_iter().chain(own).collect();
    let error = fail(&other, data.path(), 1);
    assert!(error.contains("epochs 6 there, 7 now"), "{error}");
}

#[test]
fn a_server_and_clients_that_are_killed_come_to_the_same_weights() {
    let data = data();
    let (net, expected) = network(data.path());
    let state = data.path().join("state").display().to_string();
    let mut server = Server::start(&serve(&net, &state));
    let (url, address) = (server.url("http"), server.said["address"].as_str().unwrap().to_owned());
    let mut clients: Vec<Child> = (1..=3).map(|part| client(&url, part, data.path())).collect();
    // Shown where the test fails; the variable repeats the same choices.
    let seed = std::env::var("GELU_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("GELU_TEST_SEED={seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    // The server at 20 moments, each somewhere in its own part of the run, and a client at every third.
    let mut moments =
        (0..SERVER_KILLS).map(|kill| rng.random_range(3 * kill..3 * kill + 3)).collect::<Vec<u64>>();
    moments.reverse();
    let ledger = Ledger::open(Path::new(&state)).unwrap();
    // One that is started while there is no server says so and ends.
    let revive = |clients: &mut [Child]| {
        for (at, running) in clients.iter_mut().enumerate() {
            if running.try_wait().unwrap().is_some_and(|status| !status.success()) {
                let dead = std::mem::replace(running, client(&url, at + 1, data.path()));
                let told = String::from_utf8_lossy(&dead.wait_with_output().unwrap().stderr).into_owned();
                assert!(told.contains("cannot reach"), "seed {seed}: {told}");
            }
        }
    };
    let since = Instant::now();
    while let Some(moment) = moments.pop() {
        while ledger.runs().is_ok_and(|runs| runs[0].members.len() < 3 || runs[0].iterations < moment) {
            revive(&mut clients);
            assert!(since.elapsed() < Duration::from_secs(400), "seed {seed}, before iteration {moment}");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
        assert!(server.child.try_wait().unwrap().is_none(), "seed {seed}: the server ended by itself");
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        server = Server::start_at(&address, &serve(&net, &state));
        if moments.len() % 3 == 0 {
            let at = rng.random_range(0..3);
            // One that is done stays so.
            if clients[at].try_wait().unwrap().is_none() {
                clients[at].kill().unwrap();
                clients[at].wait().unwrap();
                clients[at] = client(&url, at + 1, data.path());
            }
        }
    }
    assert!(ledger.runs().unwrap()[0].iterations < 72, "seed {seed}: the run was over before the last kill");
    while clients.iter_mut().any(|client| client.try_wait().unwrap().is_none_or(|status| !status.success())) {
        revive(&mut clients);
        assert!(since.elapsed() < Duration::from_secs(400), "seed {seed}, after the last kill");
        std::thread::sleep(Duration::from_millis(20));
    }
    let images = clients
        .into_iter()
        .map(|client| report(client.wait_with_output().unwrap())["images"].as_u64().unwrap());
    assert_eq!(images.sum::<u64>(), 288);
    let written = Weights::read(Path::new(&state).join("net.safetensors")).unwrap();
    assert_eq!(written.tensors, expected.tensors, "seed {seed}");
    succeed(&["state", "verify", "--state", &state], data.path());
}

/// No file of the server can grow beyond a size, as on a full disk: who trains is told, and what was kept stays. With room again
/// the run goes on, to the weights of an undisturbed one.
#[cfg(unix)]
#[test]
fn a_run_that_filled_the_disk_goes_on_when_there_is_room() {
    let data = data();
    let (net, expected) = network(data.path());
    let state = data.path().join("state").display().to_string();
    let log = data.path().join("log");
    // 256 KiB, and an error in place of a signal.
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gelu")]);
    full.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::run(full, ("serve", "127.0.0.1:0"), &serve(&net, &state));
    let (url, address) = (server.url("http"), server.said["address"].as_str().unwrap().to_owned());
    let mut clients: Vec<Child> = (1..=3).map(|part| client(&url, part, data.path())).collect();
    let since = Instant::now();
    let ended = loop {
        if let Some(at) = clients.iter_mut().position(|client| client.try_wait().unwrap().is_some()) {
            break at;
        }
        assert!(since.elapsed() < Duration::from_secs(100), "the disk is never full");
        std::thread::sleep(Duration::from_millis(20));
    };
    let told = clients.remove(ended).wait_with_output().unwrap();
    let told = (told.status.code(), String::from_utf8_lossy(&told.stderr).into_owned());
    assert!(told.0 == Some(1) && told.1.contains("cannot keep the state of the run"), "{told:?}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("ledger.sqlite") && (said.contains("full") || said.contains("I/O")), "{said}");
    for mut other in clients {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    drop(server);
    let ledger = Ledger::open(Path::new(&state)).unwrap();
    ledger.verify().unwrap();
    let before = ledger.runs().unwrap()[0].iterations;
    assert!((1..72).contains(&before), "{before}");

    let _server = Server::start_at(&address, &serve(&net, &state));
    assert_eq!(ledger.runs().unwrap()[0].iterations, before);
    let clients: Vec<Child> = (1..=3).map(|part| client(&url, part, data.path())).collect();
    for client in clients {
        report(client.wait_with_output().unwrap());
    }
    let written = Weights::read(Path::new(&state).join("net.safetensors")).unwrap();
    assert_eq!(written.tensors, expected.tensors);
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    let data = data();
    let error = fail(&["serve", "--insecure", "--epochs", "3"], data.path(), 2);
    assert!(error.contains("--epochs would change nothing: nothing is trained without --train"), "{error}");
    let state = data.path().join("state").display().to_string();
    let train = ["serve", "--insecure", "--train", "--state", &state, "--weight-bits", "4"];
    let error = fail(&train, data.path(), 2);
    assert!(error.contains("--weight-bits would change nothing"), "{error}");
    let output = gelu(&["serve", "--insecure", "--train"], data.path());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--state"), "{output:?}");
}
