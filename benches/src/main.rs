//! Measures the budgets of a cluster.

fn main() {}
