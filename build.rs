//! Generates the gRPC code from `proto/` with a compiler written in Rust, so that no `protoc` is needed.

use protox::prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // What reflection tells of the storage service. The admin service has a socket of its own.
    let storage = protox::compile(["proto/storage.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("storage.bin"), storage.encode_to_vec())?;
    let descriptors = protox::compile(
        ["proto/storage.proto", "proto/admin.proto", "proto/coordinator.proto"],
        ["proto"],
    )?;
    // What a service does not define answers UNIMPLEMENTED.
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // What the admin service answers is also printed as JSON, in an order that does not change.
        .type_attribute(".pairdb.admin", "#[derive(serde::Serialize)]")
        .btree_map(".pairdb.admin")
        .compile_fds(descriptors)?;
    Ok(())
}
