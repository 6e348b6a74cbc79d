//! The shim without the rest of Podium, for the tests of this crate.

fn main() {
    runtime::shim_main()
}
