//! The start of a client's connection.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// An answer without its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
}

impl Answer {
    /// Values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// Host and path of a URL.
pub fn split(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").unwrap().1;
    rest.split_at(rest.find('/').unwrap())
}

pub async fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(split(url).0).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads the head of its answer.
pub async fn request<T>(io: &mut T, method: &str, url: &str, headers: &[(&str, &str)]) -> Answer
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (host, path) = split(url);
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    io.write_all((text + "\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("no answer: {error}, after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head }
}

/// Status and text of the answer to a request that is not granted.
pub async fn rejected(method: &str, url: &str, headers: &[(&str, &str)]) -> (Answer, String) {
    let mut io = connect(url).await;
    let answer = request(&mut io, method, url, headers).await;
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    (answer, text)
}

pub const SPDY: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
