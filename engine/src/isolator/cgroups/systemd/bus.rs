//! A connection to systemd, for one job.
//!
//! Root reaches it directly through its private socket, as systemctl does, so no message bus has to run. Everything here
//! blocks, within a limit, and belongs on a thread that may.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use super::wire::{self, Encoder, FIXED, Kind, Message};

/// Where systemd listens when it is PID 1.
pub const SOCKET: &str = "/run/systemd/private";

/// How long a job may take, all in all.
const LIMIT: Duration = Duration::from_secs(20);

/// The error that says that there is no such unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What can go wrong between systemd and us.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// systemd is not there
    #[error("systemd cannot be reached through {SOCKET}: {0}; the systemd cgroup driver needs systemd as PID 1")]
    Absent(io::Error),
    /// the conversation broke off
    #[error("the conversation with systemd broke off while {step}: {source}")]
    Broken {
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// systemd refused a call
    #[error("systemd refuses {step}: {text} ({name})")]
    Refused {
        /// What was asked for.
        step: &'static str,
        /// Name of the error.
        name: String,
        /// In systemd's words.
        text: String,
    },
    /// a job ended otherwise than well
    #[error("the job of systemd for {unit} ended with {result:?}; `journalctl -u {unit}` may tell why")]
    Job {
        /// The unit.
        unit: String,
        /// The result.
        result: String,
    },
}

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
}

/// The connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
}

impl Bus {
    /// Connects to systemd.
    pub fn connect() -> Result<Self, BusError> {
        let stream = UnixStream::connect(Path::new(SOCKET)).map_err(BusError::Absent)?;
        Self::over(stream, rustix::process::geteuid().as_raw())
    }

    /// Says who we are on a stream.
    fn over(stream: UnixStream, uid: u32) -> Result<Self, BusError> {
        let step = |source| BusError::Broken { step: "saying who we are", source };
        let mut bus = Self { stream, deadline: Instant::now() + LIMIT, serial: 0 };
        // The user's number in letters, each of them in hexadecimal.
        let uid: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).map_err(step)?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 512 {
                return Err(step(io::ErrorKind::InvalidData.into()));
            }
            let mut byte = [0];
            bus.read(&mut byte).map_err(step)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            let text = format!("it says {:?}", String::from_utf8_lossy(&line).trim_end());
            return Err(step(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
        bus.write(b"BEGIN\r\n").map_err(step)?;
        Ok(bus)
    }

    /// Starts a unit that lives until it ends, and waits until it stands.
    pub fn start(&mut self, unit: &str, properties: &[(&str, Value)]) -> Result<(), BusError> {
        let mut body = Encoder::default();
        body.string(unit);
        body.string("fail");
        body.array(8, |body| properties.iter().for_each(|(name, value)| property(body, name, value)));
        body.array(8, |_| ());
        self.job("to start a scope", unit, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body.finish())
    }

    /// Stops a unit and waits for its end. Units that are not there are fine.
    pub fn stop(&mut self, unit: &str) -> Result<(), BusError> {
        let mut body = Encoder::default();
        body.string(unit);
        body.string("replace");
        match self.job("to stop a scope", unit, "StopUnit", "ss", &body.finish()) {
            Err(BusError::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(()),
            result => result,
        }
    }

    /// Calls a method that begins a job, and waits for the end of the job.
    fn job(
        &mut self,
        step: &'static str,
        unit: &str,
        member: &str,
        signature: &str,
        body: &[u8],
    ) -> Result<(), BusError> {
        let broken = |source| BusError::Broken { step, source };
        let invalid = || broken(io::Error::new(io::ErrorKind::InvalidData, "an answer that makes no sense"));
        self.serial += 1;
        self.write(&wire::call(self.serial, member, signature, body)).map_err(broken)?;
        let (mut job, mut ended) = (None, Vec::new());
        loop {
            let message = self.message().map_err(broken)?;
            match message.kind {
                Kind::Error if message.answers == self.serial => {
                    let text = message.body().string().unwrap_or_default().to_owned();
                    return Err(BusError::Refused { step, name: message.error, text });
                }
                Kind::Return if message.answers == self.serial => {
                    job = Some(message.body().string().ok_or_else(invalid)?.to_owned());
                }
                // The end may be told before the beginning.
                Kind::Signal if message.member == "JobRemoved" => {
                    ended.push(removed(&message).ok_or_else(invalid)?);
                }
                _ => {}
            }
            let Some(job) = &job else { continue };
            if let Some((_, result)) = ended.iter().find(|(path, _)| path == job) {
                return match result.as_str() {
                    "done" => Ok(()),
                    _ => Err(BusError::Job { unit: unit.to_owned(), result: result.clone() }),
                };
            }
            ended.clear();
        }
    }

    fn message(&mut self) -> io::Result<Message> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is no message of D-Bus");
        let mut fixed = [0; FIXED];
        self.read(&mut fixed)?;
        let mut bytes = vec![0; wire::length(&fixed).ok_or_else(invalid)?];
        bytes[..FIXED].copy_from_slice(&fixed);
        self.read(&mut bytes[FIXED..])?;
        wire::parse(&bytes).ok_or_else(invalid)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

fn property(body: &mut Encoder, name: &str, value: &Value) {
    body.align(8);
    body.string(name);
    match value {
        Value::Text(text) => {
            body.signature("s");
            body.string(text);
        }
        Value::Flag(flag) => {
            body.signature("b");
            body.u32((*flag).into());
        }
        Value::Number(number) => {
            body.signature("t");
            body.u64(*number);
        }
        Value::Numbers(numbers) => {
            body.signature("au");
            body.array(4, |body| numbers.iter().for_each(|number| body.u32(*number)));
        }
    }
}

/// Path and result of a job that is over.
fn removed(message: &Message) -> Option<(String, String)> {
    let mut body = message.body();
    body.u32()?;
    let path = body.string()?.to_owned();
    body.string()?;
    Some((path, body.string()?.to_owned()))
}

#[cfg(test)]
mod tests;
