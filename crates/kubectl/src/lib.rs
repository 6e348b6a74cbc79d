//! The `kubectl` room.
