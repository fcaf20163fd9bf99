//! Port-forward over the channels of a WebSocket: two for each port that the request names, with data and for errors.
//! The server begins each channel with the number of its port.

use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    time::{Duration, timeout},
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{LINGER, connect};
use crate::{
    Backend, PortForwardRequest,
    control::Control,
    fault::Fault,
    idle::Idle,
    output::Output,
    stream::Stream,
    upgrade::Encoding,
    websocket::{self, Input, Receiver, Sender},
};

/// Ports of one session, at most: channels are numbered in one byte, or one digit.
const fn most(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Binary => 127,
        Encoding::Base64 => 5,
    }
}

/// Serves a client until it leaves or all its connections have ended.
pub(crate) async fn run(
    backend: Arc<dyn Backend>,
    request: &PortForwardRequest,
    stream: Stream,
    encoding: Encoding,
    control: &Control,
) {
    let (sender, mut receiver) = websocket::channels(stream, encoding, false).await;
    let (code, reason) = tokio::select! {
        ended = serve(&*backend, request, &sender, &mut receiver, encoding, &control.idle) => match ended {
            Ended::Left => return,
            Ended::Done => (CloseCode::Normal, String::new()),
            Ended::Fault(fault) => (fault.code, fault.message),
        },
        () = sender.clone().keep_alive() => return,
        interruption = control.interrupted(Duration::ZERO) => (CloseCode::Away, interruption.to_string()),
    };
    let farewell = async {
        sender.close(code, &reason).await;
        while let Ok(Input::Data(..) | Input::End(_)) = receiver.next().await {}
    };
    // One that stays is left.
    let _ = timeout(LINGER, farewell).await;
}

enum Ended {
    /// The client has closed the connection.
    Left,
    /// The pod has closed all of its connections.
    Done,
    Fault(Fault),
}

async fn serve(
    backend: &dyn Backend,
    request: &PortForwardRequest,
    sender: &Sender,
    receiver: &mut Receiver,
    encoding: Encoding,
    idle: &Idle,
) -> Ended {
    if request.ports.len() > most(encoding) {
        let message = format!("over websocket {} ports can be forwarded at once", most(encoding));
        return Ended::Fault(Fault { code: CloseCode::Policy, message });
    }
    let (mut inputs, mut outputs) = (Vec::new(), FuturesUnordered::new());
    for (number, port) in (0..).step_by(2).zip(&request.ports) {
        let (mut data, mut errors) =
            (Output::websocket(sender.clone(), number), Output::websocket(sender.clone(), number + 1));
        data.write(&port.to_le_bytes()).await;
        errors.write(&port.to_le_bytes()).await;
        match connect(backend, &request.pod, *port).await {
            Ok(tcp) => {
                let (from_pod, to_pod) = tcp.into_split();
                inputs.push(Some(to_pod));
                outputs.push(copy(from_pod, data, idle));
            }
            Err(message) => {
                tracing::debug!(pod = request.pod, port, message, "a port was not reached");
                errors.write(message.as_bytes()).await;
                inputs.push(None);
            }
        }
    }
    let all = async { while outputs.next().await.is_some() {} };
    tokio::select! {
        ended = feed(receiver, &mut inputs, idle) => ended,
        () = all => Ended::Done,
    }
}

/// From a pod to the client.
async fn copy(mut from_pod: OwnedReadHalf, mut output: Output, idle: &Idle) {
    // A connection that breaks has ended, too.
    while let Ok(length @ 1..) = from_pod.read_buf(output.buffer()).await {
        output.took(length);
        idle.touch();
        output.send().await;
        idle.touch();
    }
}

/// From the client to its pods.
async fn feed(receiver: &mut Receiver, inputs: &mut [Option<OwnedWriteHalf>], idle: &Idle) -> Ended {
    loop {
        match receiver.next().await {
            Ok(Input::Data(channel, data)) => {
                let Some(input) = inputs.get_mut(usize::from(channel / 2)) else { continue };
                if let (Some(to_pod), 0) = (&mut *input, channel % 2) {
                    idle.touch();
                    if to_pod.write_all(&data).await.is_err() {
                        *input = None;
                    }
                    idle.touch();
                }
            }
            Ok(Input::End(_)) => {}
            Ok(Input::Closed) => return Ended::Left,
            Err(fault) => return Ended::Fault(fault),
        }
    }
}
