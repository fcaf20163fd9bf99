//! Programs that are asked whether an image may be used, called as containerd calls its image verifiers: `-name`,
//! `-digest` and `-stdin-media-type` as arguments, the descriptor of what the name resolves to on standard input. Exit
//! code 0 is yes; with any other the reason stands on standard output.

use std::{ffi::OsString, io, path::Path};

use tripod_engine::{Error, Result};

use super::{PolicyError, Refusal, Subject};
use crate::{config::Verifiers, fetch::blocking, program};

const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 32 << 10;
/// Letters of a reason that are told.
const MAX_REASON: usize = 1000;

/// Asks one after the other; the first that refuses decides.
pub(super) async fn check(config: &Verifiers, subject: Subject<'_>) -> Result<()> {
    let Some(folder) = config.bin_dir.clone() else { return Ok(()) };
    let Some(top) = subject.chain.first() else { return Ok(()) };
    let (listed, max) = (folder.clone(), config.max_verifiers);
    let names = blocking(move || programs(&listed, max)).await?.map_err(Error::from)?;
    let input = serde_json::json!({"mediaType": top.media_type, "digest": top.digest.to_string(), "size": top.size});
    let (name, digest) = (subject.reference.to_string(), top.digest.to_string());
    let arguments = ["-name", &name, "-digest", &digest, "-stdin-media-type", DESCRIPTOR];
    for file in names {
        let path = folder.join(&file);
        let ended = program::run(&path, &arguments, input.to_string().as_bytes(), config.limit(), MAX_ANSWER).await;
        let ended = ended.map_err(|source| {
            let what = format!("the verifier {} gave no answer", path.display());
            PolicyError::Program { what, source }
        })?;
        let said = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.trim().chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect::<String>()
        };
        tracing::debug!(verifier = %path.display(), image = name, how = ended.how(), stderr = said(&ended.stderr), "asked");
        if !ended.status.success() {
            let (program, status, why) = (path.display().to_string(), ended.how(), said(&ended.stdout));
            return Err(Refusal::Verifier { program, status, why }.into());
        }
    }
    Ok(())
}

/// What is in the folder, by name. A folder that is missing, or has more than are to be asked, would let images in that
/// somebody meant to keep out.
fn programs(folder: &Path, max: usize) -> std::result::Result<Vec<OsString>, PolicyError> {
    let failed = |source| PolicyError::Read { path: folder.to_owned(), source };
    let entries: io::Result<Vec<_>> =
        std::fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = entries.map_err(failed)?;
    if names.len() > max {
        let why = format!("it has {} programs, more than image.verifiers.max_verifiers ({max})", names.len());
        return Err(PolicyError::Invalid { path: folder.to_owned(), why });
    }
    names.sort();
    Ok(names)
}
