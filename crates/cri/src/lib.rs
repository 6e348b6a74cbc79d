//! The `cri` room.

pub mod streaming;
