//! Compiles the CRI's messages without needing protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["runtime/v1/api.proto", "podium/v1/archives.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Its Debug is written by hand, so that no password reaches a log.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(files)?;
    Ok(())
}
