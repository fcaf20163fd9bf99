//! Services in a "pod".

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Does the same with every connection.
async fn serve<F>(work: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(work(stream));
        }
    });
    port
}

/// Sends back what it gets, as it comes.
pub async fn echo() -> u16 {
    serve(async |mut stream: TcpStream| {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// Reads all, then says how much it was.
pub async fn count() -> u16 {
    serve(async |mut stream: TcpStream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() {
            let _ = stream.write_all(all.len().to_string().as_bytes()).await;
        }
    })
    .await
}

/// Says something and closes.
pub async fn greet() -> u16 {
    serve(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"welcome").await;
    })
    .await
}

/// A port where nobody listens, and nobody will: it is taken for as long as the process lives.
pub fn nobody() -> u16 {
    let socket = Box::leak(Box::new(TcpSocket::new_v4().unwrap()));
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.local_addr().unwrap().port()
}
