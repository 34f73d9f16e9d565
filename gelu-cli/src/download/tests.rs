use std::{io::Write, net::TcpListener, thread, time::Instant};

use super::*;

/// Serves `answer` to the next `requests` requests on a loopback port, and returns the address.
fn serve(answer: Vec<u8>, requests: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mnist/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().take(requests) {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            stream.write_all(&answer).unwrap();
        }
    });
    url
}

fn answer(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A file whose contents are `hello`.
const HELLO: RemoteFile = RemoteFile {
    name: "hello.gz",
    sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
};

fn attempt(mirrors: &[&str]) -> (anyhow::Result<()>, tempfile::TempDir, u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut received = 0;
    let outcome =
        download(folder.path(), &HELLO, mirrors, &mut |step: Progress<'_>| received = step.received);
    (outcome, folder, received)
}

fn failure(outcome: anyhow::Result<()>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn a_right_file_is_kept_and_not_fetched_again() {
    let mirror = serve(answer(5, b"hello"), 1);
    let (outcome, folder, received) = attempt(&[&mirror]);
    outcome.unwrap();
    assert_eq!(received, 5);
    assert_eq!(std::fs::read(folder.path().join("hello.gz")).unwrap(), b"hello");
    download(folder.path(), &HELLO, &[], &mut |_: Progress<'_>| panic!("fetched again")).unwrap();
}

#[test]
fn the_next_mirror_is_tried() {
    let mirrors = [serve(answer(4, b"hell"), 1), serve(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), 1)];
    let right = serve(answer(5, b"hello"), 1);
    attempt(&[&mirrors[0], &mirrors[1], &right]).0.unwrap();
}

#[test]
fn wrong_contents_are_refused_and_leave_no_file() {
    let (outcome, folder, _) = attempt(&[&serve(answer(5, b"hallo"), 1)]);
    let why = failure(outcome);
    assert!(why.contains("expected SHA-256 2cf24dba") && why.contains("found d3751d33"), "{why}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_body_that_breaks_off_is_refused() {
    let (outcome, folder, _) = attempt(&[&serve(answer(5, b"hel"), 1)]);
    let why = failure(outcome);
    assert!(why.contains("broke off after 3 bytes"), "{why}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn too_long_a_body_is_refused_before_it_is_read() {
    let (outcome, ..) = attempt(&[&serve(answer(1 << 40, b""), 1)]);
    let why = failure(outcome);
    assert!(why.contains("expected at most 16777216 bytes, found 1099511627776"), "{why}");
}

#[test]
fn without_a_network_the_message_says_what_to_do_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mirror = format!("http://{closed}");
    let folder = DataDir::locate(Some(data.path().to_owned()));
    let error = download_mnist(&folder, &[&mirror], |_| {}).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(60));
    let message = error.to_string();
    assert!(message.contains("t10k-images-idx3-ubyte.gz"), "{message}");
    assert!(message.contains(&mirror) && message.contains("check the network"), "{message}");
}
