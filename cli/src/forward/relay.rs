//! One forwarded connection: bytes both ways, each way with an end of its own.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tripod_streaming::spdy::{Error, Reader, Writer};

use super::tunnel::{Pair, Tunnel};
use crate::CliError;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// How long an error may take to come when the bytes have ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes of an error that are shown.
const MAX_ERROR: usize = 4 << 10;

/// Why the bytes of a connection stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// This side's client is gone: nobody to tell.
    #[error("{0}")]
    Local(#[from] io::Error),
    /// The way into the pod is.
    #[error("{0}")]
    Remote(#[from] Error),
}

/// Carries a connection through. Failures are told; an error comes back if no other connection can succeed either.
pub(super) async fn run(stream: TcpStream, port: u16, tunnel: &Tunnel) -> Result<(), CliError> {
    let _ = stream.set_nodelay(true);
    match tunnel.pair(port).await {
        Ok(pair) => relay(stream, port, pair).await,
        Err(CliError::Call { step, status }) if status.code() == tonic::Code::NotFound => {
            return Err(CliError::Call { step, status });
        }
        Err(error) => eprintln!("tripod: connection to port {port}: {error}"),
    }
    Ok(())
}

async fn relay(stream: TcpStream, port: u16, pair: Pair) {
    let Pair { data, error, end } = pair;
    let (reader, writer) = data.split();
    let (from, to) = stream.into_split();
    let (mut errors, _) = error.split();
    let copy = async { tokio::try_join!(up(from, writer), down(reader, to)) };
    tokio::pin!(copy);
    let told = tokio::select! {
        // An error ends the connection even where the other side leaves its streams open.
        text = told(&mut errors) => match text {
            None => copy.await.map(|_| None),
            text => Ok(text),
        },
        outcome = &mut copy => match outcome {
            Ok(_) | Err(Stop::Remote(_)) => {
                let text = timeout(LAST_WORDS, told(&mut errors)).await.unwrap_or_default();
                if text.is_some() { Ok(text) } else { outcome.map(|_| None) }
            }
            outcome => outcome.map(|_| None),
        },
    };
    match told {
        Ok(Some(text)) => eprintln!("tripod: connection to port {port}: {text}"),
        Err(Stop::Remote(Error::Ended(why))) => end.tell(&why),
        Err(Stop::Remote(error)) => eprintln!("tripod: connection to port {port}: {error}"),
        _ => {}
    }
}

async fn up(mut from: OwnedReadHalf, mut writer: Writer) -> Result<(), Stop> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(writer.finish().await?),
            read => writer.write(&chunk[..read]).await?,
        }
    }
}

async fn down(mut reader: Reader, mut to: OwnedWriteHalf) -> Result<(), Stop> {
    while let Some(bytes) = reader.read().await? {
        to.write_all(&bytes).await?;
    }
    Ok(to.shutdown().await?)
}

/// What the other side says on the error stream; it ends without a word if all is well.
async fn told(errors: &mut Reader) -> Option<String> {
    let mut text = Vec::new();
    while let Ok(Some(bytes)) = errors.read().await {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_ERROR {
            break;
        }
    }
    text.truncate(MAX_ERROR);
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
