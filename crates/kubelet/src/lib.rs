//! The `kubelet` room.
