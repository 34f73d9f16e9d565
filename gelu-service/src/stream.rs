//! What both sides put gRPC on: a stream of bytes, with TLS or without.

use gelu_wire::MESSAGE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};

/// The most bytes of a frame from a client: a chunk of ciphertexts, or its part of the transfers for a block of circuits, and
/// what is around them.
pub(crate) const CLIENT_FRAME_BYTES: usize = (1 << 20) + (1 << 16) + (1 << 12);

/// The most bytes of a frame from a server: any message, and what is around it.
pub(crate) const SERVER_FRAME_BYTES: usize = MESSAGE_BYTES + (1 << 12);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
