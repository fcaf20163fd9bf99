//! What this program does inside containers: the other end of the streams, and the logs that are measured.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Subcommand;

/// Bytes read or written at once; a pipe holds as many.
const BLOCK: usize = 64 << 10;

/// Digits of the number at the beginning of a long line.
pub const DIGITS: usize = 12;

/// What follows the last line: this and the number of lines.
pub const END: &str = "end of lines ";

/// First byte of a connection to [`Work::Serve`]: the server sends as many bytes as the next eight say.
pub const SEND: u8 = b's';

/// The server takes as many bytes as the next eight say, and answers with one.
pub const TAKE: u8 = b't';

/// The server sends back every byte.
pub const ECHO: u8 = b'e';

/// How long a container waits for the measure to begin.
const WAIT: Duration = Duration::from_secs(300);

/// What to do in the container.
#[derive(Debug, Subcommand)]
pub enum Work {
    /// Writes so many bytes to standard output.
    Source {
        /// Bytes.
        bytes: u64,
    },
    /// Reads so many bytes from standard input. It does not wait for its end: not every protocol has one.
    Sink {
        /// Bytes.
        bytes: u64,
    },
    /// Serves TCP connections on loopback.
    Serve {
        /// Where.
        port: u16,
    },
    /// Prints lines as fast as they are taken, and how many they were.
    Print {
        /// Length of a line with its end; long ones are numbered.
        length: usize,
        /// For how long at most.
        #[arg(long)]
        seconds: f64,
        /// How many at most.
        #[arg(long)]
        lines: u64,
        /// Each line with a write of its own, as programs do that flush their logs.
        #[arg(long)]
        single: bool,
        /// Waits until this file exists.
        #[arg(long)]
        when: PathBuf,
    },
}

/// Does it.
pub fn work(work: &Work) -> io::Result<()> {
    match work {
        Work::Source { bytes } => write_bytes(&mut unbuffered(io::stdout())?, *bytes),
        Work::Sink { bytes } => read_bytes(&mut unbuffered(io::stdin())?, *bytes),
        Work::Serve { port } => serve(*port),
        Work::Print { length, seconds, lines, single, when } => {
            wait_for(when)?;
            let until = Instant::now() + Duration::from_secs_f64(*seconds);
            print(*length, *lines, until, *single)
        }
    }
}

/// The descriptor itself: the library's own standard streams have small buffers and look for ends of lines.
fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

fn write_bytes(to: &mut impl Write, bytes: u64) -> io::Result<()> {
    let block = [0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(BLOCK as u64) as usize;
        to.write_all(&block[..size])?;
        left -= size as u64;
    }
    to.flush()
}

fn read_bytes(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut block = [0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(BLOCK as u64) as usize;
        match from.read(&mut block[..size])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(())
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for connection in listener.incoming() {
        let connection = connection?;
        // A client that goes away is the client's business.
        thread::spawn(move || converse(connection));
    }
    Ok(())
}

fn converse(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut what = [0];
    connection.read_exact(&mut what)?;
    if what[0] == ECHO {
        let mut bytes = [0; 4096];
        loop {
            match connection.read(&mut bytes)? {
                0 => return Ok(()),
                read => connection.write_all(&bytes[..read])?,
            }
        }
    }
    let mut size = [0; 8];
    connection.read_exact(&mut size)?;
    match what[0] {
        SEND => write_bytes(&mut connection, u64::from_le_bytes(size)),
        _ => {
            read_bytes(&mut connection, u64::from_le_bytes(size))?;
            connection.write_all(b".")?;
            // Whoever closes first may take the answer along.
            connection.read(&mut what).map(drop)
        }
    }
}

fn wait_for(file: &Path) -> io::Result<()> {
    let began = Instant::now();
    while !file.exists() {
        if began.elapsed() > WAIT {
            return Err(io::Error::other(format!("{} did not appear within {WAIT:?}", file.display())));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn print(length: usize, lines: u64, until: Instant, single: bool) -> io::Result<()> {
    let mut output = unbuffered(io::stdout())?;
    let mut block = vec![b'y'; if single { length } else { (BLOCK / length).max(1) * length }];
    for line in block.chunks_exact_mut(length) {
        line[length - 1] = b'\n';
    }
    let in_block = (block.len() / length) as u64;
    let mut printed = 0;
    while printed < lines && Instant::now() < until {
        if length > DIGITS {
            for (index, line) in block.chunks_exact_mut(length).enumerate() {
                number(&mut line[..DIGITS], printed + index as u64);
            }
        }
        output.write_all(&block)?;
        printed += in_block;
    }
    output.write_all(format!("{END}{printed}\n").as_bytes())
}

fn number(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}
