//! Writes the contract's descriptor set into a file, for tools that read such sets: `critest/contract`, grpcurl.

use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: descriptors FILE");
        return ExitCode::from(2);
    };
    match fs::write(&path, tripod_cri_api::FILE_DESCRIPTOR_SET) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the descriptor set to {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
