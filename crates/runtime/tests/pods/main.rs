//! Real pods on a real kernel: every test has directories and cgroups of its own, and proves that nothing is left.

#![allow(clippy::unwrap_used)] // a failed call fails the test

mod lifecycle;
mod restart;
mod sessions;
mod support;
mod timing;
mod variants;
