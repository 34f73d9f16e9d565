//! gelu-net
