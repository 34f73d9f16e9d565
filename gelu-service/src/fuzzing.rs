//! What a fuzz target does with bytes from a connection; tests replay its findings.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use gelu_io::transport::Transport;
use prost::Message;
use rustls::pki_types::CertificateDer;

use crate::client::Remote;
use crate::link::{Link, LinkPatience};
#[cfg(test)]
use crate::proto;
use crate::proto::{ClientFrame, ListModelsRequest, ListModelsResponse, ServerFrame, client_frame};
use crate::{Credentials, Fingerprint};

/// Decodes the bytes as everything that the service reads, and has frames of them taken as a server would.
#[allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]
pub fn service(bytes: &[u8]) {
    let _ = ListModelsRequest::decode(bytes);
    let _ = ServerFrame::decode(bytes);
    for model in ListModelsResponse::decode(bytes).map_or(vec![], |list| list.models) {
        let _ = Remote::offer(model);
    }
    let _ = Fingerprint::of(&CertificateDer::from(bytes));
    let _ = Credentials::from_pem(bytes, bytes, bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Fingerprint>();
    }
    frames(Bytes::copy_from_slice(bytes));
}

/// Frames one after the other, as many as there are: those that open a stream make a new connection.
fn frames(mut bytes: Bytes) {
    let forever = Duration::from_secs(3600);
    let link = Link::new(LinkPatience { silence: forever, absence: forever });
    let mut connection = 0;
    let mut heard = 0;
    let mut said = 0_u8;
    while bytes.has_remaining() {
        let Ok(frame) = ClientFrame::decode_length_delimited(&mut bytes) else { return };
        let taken = match frame.frame {
            Some(client_frame::Frame::Open(open)) => {
                link.connect(open.received).map(|number| connection = number)
            }
            Some(client_frame::Frame::Data(data)) => {
                let delivery = link.deliver(connection, (data.number, data.message), data.received);
                at_once(delivery).unwrap_or(Ok(()))
            }
            Some(client_frame::Frame::Received(has)) => link.confirmed(connection, has),
            None => return,
        };
        while let Ok(Some(_)) = link.try_receive() {
            heard += 1;
        }
        // Each message counts once, whatever was said of it.
        assert_eq!(heard, link.received());
        if taken.is_err() {
            continue;
        }
        said = said.wrapping_add(1);
        let _ = link.send(vec![said; usize::from(said)]);
        while let Some(Ok(Some(_))) = at_once(link.next(connection)) {}
    }
}

/// What a future gives without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams as a client of ours has them, a server's list, and a certificate.
    fn seeds() -> [(&'static str, Vec<u8>); 5] {
        let open = |received| {
            let (version, model) = (crate::SERVICE_VERSION, "m".to_owned());
            client_frame::Frame::Open(proto::Open { version, model, received, ..proto::Open::default() })
        };
        let data = |number, received| {
            let message = Bytes::from_static(b"GELU");
            client_frame::Frame::Data(proto::Data { number, message, received })
        };
        let stream = |frames: Vec<client_frame::Frame>| {
            let frames = frames.into_iter().map(|frame| ClientFrame { frame: Some(frame) });
            frames.flat_map(|frame| frame.encode_length_delimited_to_vec()).collect()
        };
        let messages = [vec![open(0)], (0..20).map(|at| data(at, at.min(3))).collect()].concat();
        let again =
            vec![open(0), data(0, 0), data(1, 1), open(1), data(2, 2), client_frame::Frame::Received(3)];
        let model =
            proto::Model { name: "m".to_owned(), input: vec![1, 6, 6], outputs: 3, ..Default::default() };
        let list = ListModelsResponse { models: vec![model.clone(), model] };
        let own = crate::TrialAuthority::new(1).unwrap().client("c").unwrap();
        [
            ("messages", stream(messages)),
            ("again", stream(again)),
            ("list", list.encode_to_vec()),
            ("certificate.pem", own.certificate.clone().into_bytes()),
            ("key-and-certificate.pem", [own.key, own.certificate].concat().into_bytes()),
        ]
    }

    /// The seeds of all fuzz targets, and what was found with them.
    #[test]
    fn no_seed_and_no_finding_does_harm() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            std::fs::create_dir_all(folder.join("seeds/service")).unwrap();
            for (name, bytes) in seeds() {
                std::fs::write(folder.join("seeds/service").join(name), bytes).unwrap();
            }
        }
        let mut folders = vec![folder.join("seeds"), folder.join("findings")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        service(&std::fs::read(&path).unwrap());
                        files += 1;
                    }
                }
            }
        }
        assert!(files > 20, "{files}");
    }
}
