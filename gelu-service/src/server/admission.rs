//! Who may have another connection: one certificate does not hold the places of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::{Request, Status};
use tracing::warn;

use super::accept::Peer;
use super::metrics::Metrics;
use crate::{Fingerprint, Refusal};

/// Connections beyond the limit that one certificate may have while they are told so. Further ones are closed unheard.
const REFUSED_AT_A_TIME: usize = 4;

/// Connections by the certificate that they were made with.
#[derive(Debug)]
pub(super) struct Admission {
    limit: usize,
    held: Mutex<HashMap<Fingerprint, usize>>,
}

/// A connection that is counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Counted {
    of: Fingerprint,
    admission: Arc<Admission>,
}

/// What becomes of a connection.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is let in.
    Yes(Counted),
    /// It lasts until its client has been told why it is not let in.
    ToBeTold(Counted),
    /// It is closed at once.
    No,
}

impl Admission {
    /// One that lets each certificate have so many connections at a time.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::default() })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts another connection of a certificate.
    pub(super) fn enter(self: &Arc<Self>, of: Fingerprint) -> Entry {
        let mut held = self.held();
        let count = held.entry(of).or_default();
        if *count >= self.limit.saturating_add(REFUSED_AT_A_TIME) {
            return Entry::No;
        }
        *count += 1;
        let is_within = *count <= self.limit;
        drop(held);
        let counted = Counted { of, admission: Arc::clone(self) };
        if is_within { Entry::Yes(counted) } else { Entry::ToBeTold(counted) }
    }

    /// A thread that panicked left the counts whole: each changes in one step.
    fn held(&self) -> MutexGuard<'_, HashMap<Fingerprint, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut held = self.admission.held();
        if let Some(count) = held.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.of);
            }
        }
    }
}

/// Tells clients of connections beyond the limit so, whatever they ask for.
pub(super) fn refuse_beyond(
    metrics: Arc<Metrics>,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + Send + 'static {
    move |request| {
        let peer = request.extensions().get::<Peer>().copied();
        let Some((peer, limit)) = peer.and_then(|peer| Some((peer, peer.beyond?))) else {
            return Ok(request);
        };
        warn!(address = %peer.address, client = ?peer.identity, limit, "refused: too many connections");
        metrics.refused(Refusal::Connections);
        Err(Refusal::Connections.status(format!(
            "this client's certificate may have {limit} connections at a time, and has them; close some, or try again later"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_so_many_connections_and_no_other_is_affected() {
        let admission = Admission::new(2);
        let [own, other]: [Fingerprint; 2] = ["ab", "cd"].map(|byte| byte.repeat(32).parse().unwrap());
        let mut held: Vec<Entry> = (0..2 + REFUSED_AT_A_TIME).map(|_| admission.enter(own)).collect();
        assert!(held[..2].iter().all(|entry| matches!(entry, Entry::Yes(_))));
        assert!(held[2..].iter().all(|entry| matches!(entry, Entry::ToBeTold(_))));
        assert!(matches!(admission.enter(own), Entry::No));
        assert!(matches!(admission.enter(other), Entry::Yes(_)));
        // Those that are being told count until they are gone.
        held.drain(..2);
        assert!(matches!(admission.enter(own), Entry::ToBeTold(_)));
        held.clear();
        assert!(matches!(admission.enter(own), Entry::Yes(_)));
        assert!(admission.held().is_empty());
    }
}
