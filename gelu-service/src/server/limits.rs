//! What a server allows.

use std::time::Duration;

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Conversations at a time, of all clients. Default: 64.
    pub sessions: usize,
    /// Conversations of one client's certificate at a time. Default: 16.
    pub sessions_per_client: usize,
    /// Connections at a time. Default: 256.
    pub connections: usize,
    /// Connections of one client's certificate at a time; clients without TLS have none. Default: 32.
    pub connections_per_client: usize,
    /// For a TLS handshake, and for the first frame of a stream. Default: 10 s.
    pub opening: Duration,
    /// For a message that the server waits for. Default: 5 minutes.
    pub silence: Duration,
    /// For a client to come back after its connection broke. Default: 2 minutes.
    pub absence: Duration,
    /// For conversations to end once the server is told to stop. Default: 30 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 64,
            sessions_per_client: 16,
            connections: 256,
            connections_per_client: 32,
            opening: Duration::from_secs(10),
            silence: Duration::from_secs(300),
            absence: Duration::from_secs(120),
            grace: Duration::from_secs(30),
        }
    }
}
