//! `gelu serve`, `gelu client` and `gelu certs`, as two users run them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::server::Server;
use crate::common::{Folder, fail, picture, succeed};

fn json(arguments: &[&str], data: &Path) -> Value {
    serde_json::from_str(&succeed(arguments, data)).unwrap()
}

#[test]
fn a_server_answers_as_the_local_command_does() {
    let folder = Folder::new();
    let picture = picture(&folder);
    let server = Server::start(&[
        "--insecure",
        "--model",
        "conv1",
        "digits=lenet5",
        "--modes",
        "any",
        "conv1=revealed",
    ]);
    let url = server.url("http");
    let to = ["--server", &url, "--insecure"];

    let models = json(&[&["client", "models", "--json"], &to[..]].concat(), folder.0.path());
    let names: Vec<&str> =
        models["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["conv1", "digits"]);
    assert_eq!(models["models"][0]["input"], serde_json::json!([1, 28, 28]));
    let table = succeed(&[&["client", "models"], &to[..]].concat(), folder.0.path());
    assert!(table.contains("digits") && table.contains("28x28"), "{table}");

    let asked = ["--images", &picture, "--key-bits", "1024", "--logits", "--json"];
    let remote = [&["client", "infer", "--model", "conv1"], &to[..], &asked[..]].concat();
    let remote = json(&remote, folder.0.path());
    let local = json(&[&["infer", "--model", "conv1"], &asked[..]].concat(), folder.0.path());
    assert_eq!(remote["logits"], local["logits"]);
    assert_eq!(remote["rows"], local["rows"]);
    // The session's random name has more digits in one than in the other.
    for (bytes, least) in [("bytes_up", 5000), ("bytes_down", 2000)] {
        let [remote, local] = [&remote, &local].map(|report| report[bytes].as_u64().unwrap());
        assert!(remote.abs_diff(local) < 1000 && remote > least, "{bytes}: {remote}, {local}");
    }
    assert_eq!(remote["client"]["encryptions"], local["client"]["encryptions"]);
    assert_eq!(remote["server"]["address"], *url);
    assert_eq!(remote["agree_fixed"], Value::Null);
    assert_eq!((&remote["mode"], &models["models"][0]["hidden"]), (&"revealed".into(), &Value::Null));

    // Where a model is offered hidden, that is what a client takes if it says nothing else.
    let digits = [&["client", "infer", "--model", "digits"], &to[..], &asked[..]].concat();
    let hidden = json(&digits, folder.0.path());
    let revealed = json(&[&digits[..], &["--revealed"]].concat(), folder.0.path());
    assert_eq!((&hidden["mode"], &hidden["reveal"]), (&"hidden".into(), &"logits".into()));
    assert_eq!((&revealed["mode"], &hidden["logits"]), (&"revealed".into(), &revealed["logits"]));
    let local =
        json(&[&["infer", "--model", "lenet5", "--hide-model"], &asked[..]].concat(), folder.0.path());
    assert_eq!(hidden["logits"], local["logits"]);
    for field in ["ands", "round_trips", "prepared"] {
        assert_eq!(hidden[field], local[field], "{field}");
    }
    let online = |report: &Value| report["online"]["bytes_down"].as_u64().unwrap();
    assert!(online(&hidden).abs_diff(online(&local)) < 1000 && online(&hidden) > 250_000);
    let error = fail(
        &[&["client", "infer", "--model", "conv1", "--hide-model"], &to[..], &asked[..]].concat(),
        folder.0.path(),
        1,
    );
    assert!(error.contains("does not offer conv1 hidden"), "{error}");

    let error = fail(&[&["client", "infer"], &to[..], &asked[..]].concat(), folder.0.path(), 1);
    assert!(error.contains("--model NAME: expected one of conv1, digits"), "{error}");
    let error =
        fail(&[&["client", "infer", "--model", "x"], &to[..], &asked[..]].concat(), folder.0.path(), 1);
    assert!(error.contains("--model x") && error.contains("offers conv1, digits"), "{error}");
    server.stop();
    let error = fail(&[&["client", "models"], &to[..]].concat(), folder.0.path(), 1);
    assert!(error.contains("cannot reach"), "{error}");
}

/// The server is killed while it works, and another takes its place: the client sends again what has no answer.
#[test]
fn a_client_goes_on_after_the_server_was_killed() {
    let folder = Folder::new();
    let picture = picture(&folder);
    let state = folder.path("state").display().to_string();
    let serve = ["--insecure", "--model", "conv1", "--modes", "revealed", "--state", &state];
    let server = Server::start(&serve);
    let address = server.said["address"].as_str().unwrap().to_owned();
    let url = server.url("http");
    let mut asked = vec!["client", "infer", "--server", &url, "--insecure", "--key-bits", "1024"];
    asked.extend(["--batch", "1", "--json", "--images"]);
    asked.resize(asked.len() + 60, &picture);
    let client = Command::new(env!("CARGO_BIN_EXE_gelu"))
        .args(&asked)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until it has been asked for some.
    let inputs = || {
        let shown = json(&["state", "show", "--state", &state, "--json"], folder.0.path());
        shown["usage"].as_array().unwrap().iter().map(|of| of["inputs"].as_u64().unwrap()).sum::<u64>()
    };
    let since = Instant::now();
    while inputs() < 5 && since.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Dropped, it is killed without a warning.
    drop(server);
    let server = Server::start_at(&address, &serve);
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["count"], 60);
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["class"] == rows[0]["class"]), "{rows:?}");
    // Those that were lost on their way, two at most, were asked for again.
    assert!((60..=62).contains(&inputs()), "{}", inputs());
    assert!(inputs() == 60 || told.contains("sent again in another conversation"), "{told}");
    server.stop();
}

#[test]
fn certificates_of_one_authority_let_both_sides_in_and_a_changed_server_is_noticed() {
    let folder = Folder::new();
    let (certs, state) = (folder.path("certs"), folder.path("state").display().to_string());
    let file = |name: &str| certs.join(name).display().to_string();
    let out = certs.display().to_string();
    let made = json(&["certs", "--out", &out, "--client", "north", "south", "--json"], folder.0.path());
    let error = fail(&["certs", "--out", &out], folder.0.path(), 1);
    assert!(error.contains("is there already"), "{error}");

    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(file);
    let tls = ["--model", "lenet5", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
    let server = Server::start(&tls);
    assert_eq!(server.said["fingerprint"], made["fingerprint"]);
    let url = server.url("https");
    let [own, own_key] = ["north.pem", "north.key"].map(file);
    let to = ["--server", &url, "--state", &state];
    let with = ["--tls-cert", &own, "--tls-key", &own_key, "--server-ca", &ca];
    let models = [&["client", "models", "--json"], &to[..], &with[..]].concat();
    assert_eq!(json(&models, folder.0.path())["fingerprint"], made["fingerprint"]);
    let asked = ["--images", &picture(&folder), "--key-bits", "1024", "--json"];
    let found = json(&[&["client", "infer"], &to[..], &with[..], &asked[..]].concat(), folder.0.path());
    assert_eq!(found["count"], 1);

    let error = fail(&[&["client", "models"], &to[..]].concat(), folder.0.path(), 1);
    assert!(error.contains("expected --tls-cert, --tls-key and --server-ca, or --insecure"), "{error}");

    // The same address with another key: the operator's doing, or not.
    let known = Path::new(&state).join("known-servers.json");
    let text = std::fs::read_to_string(&known).unwrap();
    let fingerprint = made["fingerprint"].as_str().unwrap();
    assert!(text.contains(fingerprint), "{text}");
    std::fs::write(&known, text.replace(fingerprint, &"0".repeat(64))).unwrap();
    let error = fail(&models, folder.0.path(), 1);
    assert!(error.contains("known-servers.json") && error.contains("another machine answers"), "{error}");
    server.stop();
}

#[test]
fn what_clients_ask_for_is_kept_and_bounded() {
    let folder = Folder::new();
    let state = folder.path("state").display().to_string();
    let picture = picture(&folder);
    let serve = ["--insecure", "--model", "lenet5", "--state", &state, "--budget", "3"];
    for runs in [&[true, true][..], &[true, false]] {
        let server = Server::start(&serve);
        let url = server.url("http");
        let ask =
            ["client", "infer", "--server", &url, "--insecure", "--key-bits", "1024", "--images", &picture];
        for &is_granted in runs {
            match is_granted {
                true => drop(succeed(&ask, folder.0.path())),
                false => {
                    let error = fail(&ask, folder.0.path(), 1);
                    assert!(
                        error.contains("of the 3 inputs that it grants this client, 3 are used"),
                        "{error}"
                    );
                }
            }
        }
        let shown = json(&["state", "show", "--state", &state, "--json"], folder.0.path());
        assert_eq!(shown["usage"].as_array().unwrap().len(), 1);
        server.stop();
    }
    let shown = json(&["state", "show", "--state", &state, "--json"], folder.0.path());
    assert_eq!((&shown["usage"][0]["inputs"], &shown["usage"][0]["model"]), (&3.into(), &"lenet5".into()));
    assert!(succeed(&["state", "verify", "--state", &state], folder.0.path()).contains("whole, 1 accounts"));
    let other = folder.path("other").display().to_string();
    let server = Server::start(&["--insecure", "--model", "lenet5", "--state", &other, "--rate", "1"]);
    let url = server.url("http");
    let ask = ["client", "infer", "--server", &url, "--insecure", "--key-bits", "1024", "--images", &picture];
    succeed(&ask, folder.0.path());
    let error = fail(&ask, folder.0.path(), 1);
    assert!(error.contains("it grants this client 1 inputs an hour"), "{error}");
    server.stop();
    let copy = folder.path("copy.sqlite").display().to_string();
    let backup = ["state", "backup", "--state", &state, "--out", &copy];
    assert!(succeed(&backup, folder.0.path()).contains("copy.sqlite"));
    assert!(fail(&backup, folder.0.path(), 1).contains("is there already"));
    let none = folder.path("none").display().to_string();
    assert!(fail(&["state", "show", "--state", &none], folder.0.path(), 1).contains("no ledger"));
}

#[test]
fn servers_that_would_not_be_safe_do_not_start() {
    let folder = Folder::new();
    let error = fail(&["serve", "--model", "lenet5"], folder.0.path(), 1);
    assert!(error.contains("expected --tls-cert, --tls-key and --client-ca, or --insecure"), "{error}");
    let open = ["serve", "--model", "lenet5", "--insecure", "--listen", "0.0.0.0:0", "--log-level", "off"];
    let error = fail(&open, folder.0.path(), 1);
    assert!(error.contains("expected TLS for 0.0.0.0:0"), "{error}");
    let error = fail(&["serve", "--model", "lenet5", "lenet5", "--insecure"], folder.0.path(), 1);
    assert!(error.contains("two models are called lenet5"), "{error}");
    let error = fail(&["serve", "--model", "lenet5", "--modes", "x=any", "--insecure"], folder.0.path(), 1);
    assert!(error.contains("--modes x=: expected one of lenet5"), "{error}");
    let far = ["client", "models", "--server", "http://192.0.2.1:7443", "--insecure"];
    let error = fail(&far, folder.0.path(), 1);
    assert!(error.contains("only a server on this machine"), "{error}");
}

#[test]
fn settings_come_from_the_line_then_the_environment_then_a_file() {
    let folder = Folder::new();
    let file = folder.path("serve.toml");
    std::fs::write(
        &file,
        "listen = \"127.0.0.1:1\"\nmodel = [\"conv1\", \"d=lenet5\"]\nsessions = 3\ninsecure = true\n",
    )
    .unwrap();
    let printed = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gelu"))
            .args(["serve", "--print-config", "--config"])
            .arg(&file)
            .args(arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = printed(&[], &[]);
    for line in ["listen = \"127.0.0.1:1\"", "sessions = 3", "insecure = true", "grace = 30"] {
        assert!(plain.lines().any(|found| found == line), "{line}: {plain}");
    }
    let variables = [("GELU_SERVE_SESSIONS", "4"), ("GELU_SERVE_GRACE", "5")];
    let other = printed(&["--grace", "6"], &variables);
    assert!(other.contains("sessions = 4\n") && other.contains("grace = 6\n"), "{other}");
    // What is printed is such a file.
    std::fs::write(&file, &other).unwrap();
    assert_eq!(printed(&[], &[]), other);

    std::fs::write(&file, "modle = \"conv1\"").unwrap();
    let error = fail(&["serve", "--config", file.to_str().unwrap()], folder.0.path(), 1);
    assert!(error.contains("`modle` is no option of `serve`"), "{error}");
}
