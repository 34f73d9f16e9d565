//! gelu-io
