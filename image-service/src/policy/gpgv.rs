//! Signatures of OpenPGP, by GnuPG's `gpgv`: it knows nothing but the keys that it is given and keeps nothing.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tripod_engine::Result;

use super::{PolicyError, file::Signed, key};
use crate::{
    fetch::blocking,
    layout::Layout,
    program::{self, Ended},
    trash::unique,
};

const PROGRAMS: [&str; 3] = ["/usr/bin/gpgv", "/bin/gpgv", "/usr/local/bin/gpgv"];
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of a claim, and of what gpgv says.
const MAX_OUTPUT: usize = 1 << 20;
const STATUS: &str = "[GNUPG:] ";

pub(super) fn is_installed() -> bool {
    find().is_some()
}

fn find() -> Option<&'static Path> {
    PROGRAMS.iter().map(Path::new).find(|path| path.exists())
}

/// Keyrings in a folder that goes with this.
#[derive(Debug)]
pub(super) struct Keyrings {
    folder: PathBuf,
    count: usize,
}

impl Drop for Keyrings {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Keyrings {
    /// Lays keys out for gpgv, which reads no armor.
    pub(super) fn new(layout: &Layout, required: &Signed) -> std::result::Result<Self, PolicyError> {
        let keyrings = Self { folder: layout.staging().join(unique()), count: required.keys.len() };
        let failed = |source| PolicyError::Read { path: keyrings.folder.clone(), source };
        std::fs::create_dir(&keyrings.folder).map_err(failed)?;
        for (number, source) in required.keys.iter().enumerate() {
            let (name, bytes) = key::bytes(source)?;
            let ring = dearmored(&bytes).map_err(|why| PolicyError::Key(name, why.to_owned()))?;
            std::fs::write(keyrings.ring(number), ring).map_err(failed)?;
        }
        Ok(keyrings)
    }

    fn ring(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.gpg"))
    }

    /// What was signed, if it was signed by one of the keys; otherwise why not.
    pub(super) async fn open(&self, signature: Vec<u8>) -> Result<std::result::Result<Vec<u8>, String>> {
        let file = self.folder.join("signature");
        let written = file.clone();
        let failed = |source| PolicyError::Program { what: "cannot run gpgv".into(), source };
        blocking(move || std::fs::write(written, signature)).await?.map_err(failed)?;
        let gpgv = find().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut arguments: Vec<std::ffi::OsString> = vec!["--homedir".into(), self.folder.clone().into()];
        for number in 0..self.count {
            arguments.extend(["--keyring".into(), self.ring(number).into()]);
        }
        arguments.extend(["--weak-digest", "SHA1", "--status-fd", "2", "--log-file", "/dev/null"].map(Into::into));
        arguments.extend(["--output".into(), "-".into(), file.into()]);
        let ended = program::run(gpgv, &arguments, b"", LIMIT, MAX_OUTPUT).await.map_err(failed)?;
        Ok(opened(ended))
    }
}

/// One good signature by a key that is neither expired nor revoked, of one text, and nothing else that gpgv wonders about.
fn opened(ended: Ended) -> std::result::Result<Vec<u8>, String> {
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    let words: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(STATUS))
        .filter_map(|line| line.split_ascii_whitespace().next())
        .collect();
    let count = |word: &str| words.iter().filter(|known| **known == word).count();
    let why = match () {
        () if count("NO_PUBKEY") > 0 => "one was made with another key",
        () if count("BADSIG") > 0 => "one was changed after it was made",
        () if count("EXPKEYSIG") > 0 => "the key of one has expired",
        () if count("EXPSIG") > 0 => "one has expired",
        () if count("REVKEYSIG") > 0 => "the key of one is revoked",
        () if count("GOODSIG") == 1
            && count("VALIDSIG") == 1
            && count("NEWSIG") == 1
            && count("PLAINTEXT") == 1
            && count("ERRSIG") == 0
            && ended.status.success() =>
        {
            return Ok(ended.stdout);
        }
        () => "one is no signature of OpenPGP that gpgv takes",
    };
    Err(why.to_owned())
}

/// Keys as packets, whether they are in armor or not.
pub(super) fn dearmored(bytes: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
    const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
    const WRONG: &str = "it has no public key of OpenPGP";
    // Each packet begins with the highest bit set.
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| WRONG)?;
    let mut rest = text;
    let mut packets = Vec::new();
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (block, after) = block.split_once(END).ok_or("its armor has no end")?;
        // Headers end with an empty line; the checksum at the end begins with an equals sign.
        let lines = block.lines().map(str::trim).skip(1).skip_while(|line| line.contains(':'));
        let body: String = lines.filter(|line| !line.starts_with('=')).collect();
        packets.extend(key::base64(&body).ok_or("its armor is broken inside: not base64")?);
        rest = after;
    }
    if packets.is_empty() { Err(WRONG) } else { Ok(packets) }
}
