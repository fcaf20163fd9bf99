//! Compiles `proto/` without protoc and leaves two things in `OUT_DIR`: the generated Rust module and the descriptor
//! set that a test holds against the upstream contract.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// Services first; everything else is reached through imports.
const ROOTS: [&str; 2] = ["runtime/v1/runtime.proto", "runtime/v1/image.proto"];

/// What tripod has beside the contract.
const OWN: &str = "tripod/v1/images.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    // The comments in the sources become the documentation of the generated code.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(ROOTS)?;
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // Credentials must not reach a log through a derived Debug; src/v1/redact.rs has the one that hides them.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(compiler.file_descriptor_set())?;

    // Not part of the contract, and so not in its descriptors.
    let mut own = protox::Compiler::new(["proto"])?;
    own.include_imports(true).include_source_info(true).open_files([OWN])?;
    tonic_prost_build::configure()
        .bytes(".")
        // A password must not reach a log; src/own.rs has the one that hides it.
        .skip_debug(["tripod.v1.CheckRequest"])
        .compile_fds(own.file_descriptor_set())?;

    // Encoded by protox itself: prost's own types would drop the options that they do not know, debug_redact for one.
    let set = compiler.include_source_info(false).encode_file_descriptor_set();
    fs::write(out.join("descriptors.binpb"), set)?;
    Ok(())
}
