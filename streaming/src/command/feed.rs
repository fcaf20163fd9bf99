//! From the client's streams to the process.

use super::{resize::Resize, stdin::Stdin};
use crate::{
    client::Source,
    fault::Fault,
    spdy,
    websocket::{Input, Receiver, channel},
};

/// Hands on what the client sends until the client closes the connection, which is the good end, or does not keep to
/// the protocol. What nobody takes is read and thrown away, so that the end behind it is heard.
pub(super) async fn feed(source: &mut Source, stdin: Stdin<'_>, resize: Resize) -> Result<(), Fault> {
    match source {
        Source::Spdy(streams) => {
            let input = async {
                tokio::try_join!(feed_input(streams.stdin.as_mut(), stdin), feed_size(streams.resize.as_mut(), resize))
                    .map(|_| ())
            };
            tokio::select! {
                Err(fault) = input => Err(fault),
                () = refuse(&mut streams.incoming) => Ok(()),
            }
        }
        Source::WebSocket(receiver) => feed_channels(receiver, stdin, resize).await,
    }
}

async fn feed_input(reader: Option<&mut spdy::Reader>, mut stdin: Stdin<'_>) -> Result<(), Fault> {
    if let Some(reader) = reader {
        while let Ok(Some(data)) = reader.read().await {
            stdin.write(&data).await;
        }
        stdin.end();
    }
    Ok(())
}

async fn feed_size(reader: Option<&mut spdy::Reader>, mut resize: Resize) -> Result<(), Fault> {
    if let Some(reader) = reader {
        while let Ok(Some(data)) = reader.read().await {
            resize.take(&data)?;
        }
    }
    Ok(())
}

/// A session has its streams and needs no others.
async fn refuse(incoming: &mut spdy::Incoming) {
    while let Some(stream) = incoming.next().await {
        stream.reset(spdy::Status::REFUSED_STREAM);
    }
}

async fn feed_channels(receiver: &mut Receiver, mut stdin: Stdin<'_>, mut resize: Resize) -> Result<(), Fault> {
    loop {
        match receiver.next().await? {
            Input::Data(channel::STDIN, data) => stdin.write(&data).await,
            Input::Data(channel::RESIZE, data) => resize.take(&data)?,
            Input::End(channel::STDIN) => stdin.end(),
            Input::Data(..) | Input::End(_) => {}
            Input::Closed => return Ok(()),
        }
    }
}
