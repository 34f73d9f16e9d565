//! gelu-layers
