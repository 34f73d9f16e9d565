//! `gelu worker` and `gelu serve --workers`, as the owner of several machines runs them.

use serde_json::Value;

use crate::common::server::Server;
use crate::common::{Folder, fail, picture, succeed};

/// Over TLS, with a worker that is killed in the middle: the integers of one machine.
#[test]
fn workers_compute_what_one_machine_does() {
    let folder = Folder::new();
    let certs = folder.path("certs");
    let file = |name: &str| certs.join(name).display().to_string();
    succeed(
        &["certs", "--out", &certs.display().to_string(), "--client", "coordinator", "north"],
        folder.0.path(),
    );
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(file);
    let tls = ["--model", "conv1", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
    let [first, second] = [0, 1].map(|_| Server::start_as("worker", "127.0.0.1:0", &tls));
    let urls = [first.url("https"), second.url("https")];
    let [own, own_key] = ["coordinator.pem", "coordinator.key"].map(file);
    let workers = ["--workers-cert", &own, "--workers-key", &own_key, "--workers-ca", &ca];
    let workers = [&["--modes", "revealed", "--workers", &urls[0], &urls[1]], &workers[..]].concat();
    let server = Server::start(&[&tls[..], &workers[..]].concat());
    let picture = picture(&folder);
    let pictures = ["--images", &picture, &picture, &picture];
    let asked = [&pictures[..], &["--key-bits", "1024", "--logits", "--json"]].concat();
    let [own, own_key] = ["north.pem", "north.key"].map(file);
    let (url, state) = (server.url("https"), folder.path("state").display().to_string());
    let with = ["--tls-cert", &own, "--tls-key", &own_key, "--server-ca", &ca, "--state", &state];
    let remote = [&["client", "infer", "--server", &url], &with[..], &asked[..]].concat();
    let local = [&["infer", "--model", "conv1"], &asked[..]].concat();
    let logits = |arguments: &[&str]| {
        let report: Value = serde_json::from_str(&succeed(arguments, folder.0.path())).unwrap();
        report["logits"].clone()
    };
    let expected = logits(&local);
    assert_eq!(logits(&remote), expected);
    drop(first);
    assert_eq!(logits(&remote), expected);
    drop(second);
    assert_eq!(logits(&remote), expected);
    server.stop();
}

#[test]
fn workers_are_reached_safely_or_not_at_all() {
    let folder = Folder::new();
    let serve = ["serve", "--model", "conv1", "--insecure", "--listen", "127.0.0.1:0", "--log-level", "off"];
    let far = [&serve[..], &["--workers", "http://192.0.2.1:7444"]].concat();
    assert!(fail(&far, folder.0.path(), 1).contains("only a server on this machine"));
    let error = fail(&[&serve[..], &["--workers-ca", "ca.pem"]].concat(), folder.0.path(), 2);
    assert!(error.contains("--workers"), "{error}");
    let open = ["worker", "--model", "conv1", "--insecure", "--listen", "0.0.0.0:0", "--log-level", "off"];
    assert!(fail(&open, folder.0.path(), 1).contains("expected TLS for 0.0.0.0:0"));
    let bare = ["worker", "--model", "conv1", "--log-level", "off"];
    assert!(fail(&bare, folder.0.path(), 1).contains("expected --tls-cert, --tls-key and --client-ca"));
}
