//! Container logs in the format of the kubelet: `TIME STREAM TAG TEXT`, one write of the container a line.

mod tail;

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tripod_cri_api::v1::{ContainerState, ContainerStatus, ContainerStatusRequest};

use crate::{CliError, Client, args::LogsArgs};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where a line of a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// A reader of a log that grows, is renamed and made anew.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not there yet.
    pending: Vec<u8>,
    timestamps: bool,
}

impl Follower {
    /// Follows the log at a path from its beginning; it need not be there yet.
    pub(crate) fn new(path: PathBuf, timestamps: bool) -> Self {
        Self { path, file: None, pending: Vec::new(), timestamps }
    }

    /// Shows what has come since the last time.
    pub(crate) fn show(&mut self, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        loop {
            if self.file.is_none() {
                match File::open(&self.path) {
                    Ok(file) => self.file = Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                }
            }
            self.show_rest(out, err)?;
            // A file of this name that is another one: the old one is read to its end, so go on with the new one.
            if !self.renamed() {
                break;
            }
            // Between the look at the old file and the one at the name, it may have got its last lines.
            self.show_rest(out, err)?;
            self.file = None;
        }
        out.flush()?;
        err.flush()
    }

    fn renamed(&self) -> bool {
        let here = self.file.as_ref().and_then(|file| file.metadata().ok());
        let there = std::fs::metadata(&self.path).ok();
        matches!((here, there), (Some(here), Some(there)) if (here.dev(), here.ino()) != (there.dev(), there.ino()))
    }

    fn show_rest(&mut self, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        use std::io::Read;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut chunk = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            self.pending.extend_from_slice(&chunk[..read]);
            let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = self.pending.split_off(end + 1);
            for line in self.pending.split_inclusive(|byte| *byte == b'\n') {
                show_line(line, self.timestamps, out, err)?;
            }
            self.pending = rest;
        }
    }
}

/// Shows one line of a log. A part of a longer one (`P`) comes without its newline.
fn show_line(line: &[u8], timestamps: bool, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    let Some((time, stream, full, text)) = parse(line) else {
        // Not of this format, so somebody else has written it: shown as it is.
        return out.write_all(line);
    };
    let write = |to: &mut dyn Write| {
        if timestamps {
            to.write_all(time)?;
            to.write_all(b" ")?;
        }
        to.write_all(text)?;
        if full { to.write_all(b"\n") } else { Ok(()) }
    };
    match stream {
        Stream::Out => write(out),
        Stream::Err => write(err),
    }
}

fn parse(line: &[u8]) -> Option<(&[u8], Stream, bool, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (words.next()?, words.next()?, words.next()?, words.next().unwrap_or_default());
    let stream = match stream {
        b"stdout" => Stream::Out,
        b"stderr" => Stream::Err,
        _ => return None,
    };
    // Tags are joined by colons, and the first of them is P or F.
    match tag.split(|byte| *byte == b':').next()? {
        b"F" => Some((time, stream, true, text)),
        b"P" => Some((time, stream, false, text)),
        _ => None,
    }
}

/// A container's status.
pub(crate) async fn status(client: &mut Client, id: &str) -> Result<ContainerStatus, CliError> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = client.runtime.container_status(request).await;
    let status = answer.map_err(CliError::call(format!("ask for container {id}")))?.into_inner().status;
    status.ok_or_else(|| CliError::NotFound(format!("the daemon tells nothing about container {id}")))
}

pub(crate) async fn command(args: LogsArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let id = client.container(&args.container).await?.id;
    let found = status(&mut client, &id).await?;
    if found.log_path.is_empty() {
        let message = format!("container {} keeps no log: it or its pod was made without a log path", args.container);
        return Err(CliError::NotFound(message));
    }
    let path = Path::new(&found.log_path);
    let failed = || CliError::io(format!("show the log {}", path.display()));
    let mut follower = Follower::new(path.to_owned(), args.timestamps);
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    if let Some(lines) = args.tail {
        follower.file = tail::open(path, lines).map_err(failed())?;
    }
    loop {
        // Asked before the look: a log is complete before its container shows as ended.
        let ended = !args.follow || status(&mut client, &id).await?.state() != ContainerState::ContainerRunning;
        match follower.show(&mut out, &mut err) {
            // Whoever read this has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            result => result.map_err(failed())?,
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
