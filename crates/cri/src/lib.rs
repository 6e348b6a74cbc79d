//! The `cri` room.
