//! How fast one SPDY stream is over the loopback: `cargo run --release --example spdy_throughput [GIGABYTES]`.

use std::{
    error::Error,
    io::{Write, stdout},
    time::Instant,
};

use tokio::net::{TcpListener, TcpStream};
use tripod_streaming::spdy::{Config, Connection, Headers, Reader, Role, Writer};

const PIECE: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let gigabytes: u64 = std::env::args().nth(1).map_or(Ok(4), |count| count.parse())?;
    let bytes = gigabytes << 30;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (client, accepted) = tokio::try_join!(TcpStream::connect(listener.local_addr()?), listener.accept())?;
    let (client, _refused) = Connection::new(client, Role::Client, Config::default());
    let (_server, mut incoming) = Connection::new(accepted.0, Role::Server, Config::default());
    let (reader, writer) = client.open(&Headers::new(), false).await?.split();
    let (their_reader, their_writer) = incoming.next().await.ok_or("no stream came")?.split();
    for (name, writer, reader) in [("to the server", writer, their_reader), ("to the client", their_writer, reader)] {
        let start = Instant::now();
        let sent = tokio::spawn(send(writer, bytes));
        let got = receive(reader).await?;
        sent.await??;
        let seconds = start.elapsed().as_secs_f64();
        writeln!(stdout(), "{name}: {got} bytes in {seconds:.2} s, {:.2} GB/s", got as f64 / seconds / 1e9)?;
    }
    Ok(())
}

async fn send(mut writer: Writer, bytes: u64) -> Result<(), tripod_streaming::spdy::Error> {
    let piece = vec![7; PIECE];
    for _ in 0..bytes / PIECE as u64 {
        writer.write(&piece).await?;
    }
    writer.finish().await
}

async fn receive(mut reader: Reader) -> Result<u64, tripod_streaming::spdy::Error> {
    let mut got = 0;
    while let Some(piece) = reader.read().await? {
        got += piece.len() as u64;
    }
    Ok(got)
}
