//! What the fuzz targets call.

mod decoders;

pub use decoders::*;
