//! gzip by `igzip`, the program of Intel's ISA-L, where it is installed: it inflates faster than any library in Rust, and
//! beside the thread that hashes what comes in, so that one large layer keeps two cores busy.
//!
//! It reads what anybody may have sent: it runs as nobody, with nothing but its pipes.

use std::{
    io::{self, BufRead, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process_group},
};

use super::stream::copy;

/// Smaller blobs are inflated before a process has started.
pub(crate) const FROM: u64 = 4 << 20;
/// Bytes of its pipes: with the usual 64 KiB, handing over takes longer than inflating.
const PIPE: usize = 1 << 20;
/// How long it may keep its input without any output.
const PATIENCE: Duration = Duration::from_secs(60);
const PLACES: [&str; 2] = ["/usr/local/bin/igzip", "/usr/bin/igzip"];
/// User and group `nobody`, whom nothing belongs to.
const NOBODY: u32 = 65534;

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Igzip {
    program: PathBuf,
    patience: Duration,
}

impl Igzip {
    /// The one that is installed, if it inflates a word rightly. Blocks for as long as a process takes.
    pub(crate) fn find() -> Option<Self> {
        let program = PLACES.map(PathBuf::from).into_iter().find(|place| place.exists())?;
        let igzip = Self { program, patience: PATIENCE };
        match igzip.tried() {
            Ok(()) => Some(igzip),
            Err(error) => {
                let program = igzip.program.display();
                tracing::warn!(%program, %error, "igzip is installed but does not work: the slower library is used");
                None
            }
        }
    }

    fn tried(&self) -> io::Result<()> {
        // The word "tripod", stored without compression.
        const WORD: &[u8] = b"tripod";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        packed.write_all(WORD)?;
        let packed = packed.finish()?;
        let (sink, source) = std::sync::mpsc::sync_channel(2);
        let (_back, used) = std::sync::mpsc::sync_channel(1);
        self.inflate(self.start()?, &mut packed.as_slice(), &sink, &used)?;
        drop(sink);
        let got = source.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
        if got == WORD { Ok(()) } else { Err(io::Error::other("it inflates to something else")) }
    }

    /// A process that waits for input.
    pub(crate) fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["-d", "-c"]).env_clear().current_dir("/").process_group(0).uid(NOBODY).gid(NOBODY);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
    }

    /// Has a process inflate all that it wants of a blob. What follows the last member stays in the blob.
    pub(crate) fn inflate(
        &self,
        mut child: Child,
        blob: &mut (impl BufRead + Send),
        sink: &SyncSender<io::Result<Vec<u8>>>,
        used: &Receiver<Vec<u8>>,
    ) -> io::Result<()> {
        let feeding = Feeding::default();
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(io::Error::other("igzip has no pipes")) };
        // Beyond what an unprivileged daemon may have, they stay as they are.
        let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE);
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE);
        let output = Output { pipe: output, feeding: &feeding, patience: self.patience };
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let end = || group.map(|group| kill_process_group(group, Signal::KILL));
        let (fed, copied) = thread::scope(|scope| {
            let feeder = thread::Builder::new().name("igzip".to_owned());
            let feeder = match feeder.spawn_scoped(scope, || feeding.feed(blob, input)) {
                Ok(feeder) => feeder,
                Err(error) => {
                    end();
                    return (Ok(()), Err(error));
                }
            };
            let copied = copy(output, sink, used);
            if copied.is_err() {
                end();
            }
            (feeder.join().unwrap_or_else(|_| Err(io::Error::other("who feeds igzip ended early"))), copied)
        });
        let status = ended(&mut child, self.patience)?;
        copied?;
        fed?;
        if status.success() {
            return Ok(());
        }
        let message = format!("{} failed ({status}): the data are no gzip, or end too early", self.program.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

/// Waits for a process whose output has ended.
fn ended(child: &mut Child, patience: Duration) -> io::Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > patience {
            child.kill()?;
            return child.wait();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the program has input that it does not take: odd while a write is under way, and for ever after the last.
#[derive(Debug, Default)]
struct Feeding(AtomicU64);

impl Feeding {
    const CLOSED: u64 = u64::MAX;

    fn feed(&self, blob: &mut impl BufRead, mut input: ChildStdin) -> io::Result<()> {
        loop {
            let piece = blob.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            let written = input.write(piece);
            self.0.fetch_add(1, Ordering::Relaxed);
            match written {
                Ok(count) => blob.consume(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It has ended, and its status says why.
                Err(_) => break,
            }
        }
        drop(input);
        self.0.store(Self::CLOSED, Ordering::Relaxed);
        Ok(())
    }

    fn writing(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count % 2 == 1)
    }
}

/// What the program writes, as long as it does.
struct Output<'a> {
    pipe: ChildStdout,
    feeding: &'a Feeding,
    patience: Duration,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let patience = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut before = None;
        loop {
            let mut polled = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut polled, Some(&patience)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                // A slow registry is not its fault.
                Ok(0) => match self.feeding.writing() {
                    now @ Some(_) if now == before => {
                        let message = format!("igzip did nothing for {} s and was ended", self.patience.as_secs());
                        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                    }
                    now => before = now,
                },
                Ok(_) => return self.pipe.read(buffer),
            }
        }
    }
}

#[cfg(test)]
mod tests;
