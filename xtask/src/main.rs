//! Build, test, demo, bench and fixtures of Podium.

fn main() {}
