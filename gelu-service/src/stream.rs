//! What both sides put gRPC on: a stream of bytes, with TLS or without.

use tokio::io::{AsyncRead, AsyncWrite};

/// The most bytes of a frame: a header and a payload of gelu-wire at their limits, and what is around them.
pub(crate) const FRAME_BYTES: usize = (1 << 20) + (1 << 16) + (1 << 12);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
