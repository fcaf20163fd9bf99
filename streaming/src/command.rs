//! A command's or an attachment's session: bytes between a client and a process until one of them has ended.
//!
//! All of it is one future. Dropping it, at any point, closes every descriptor and lets go of the process.

mod converse;
mod feed;
mod pump;
mod resize;
mod stdin;

use std::{pin::pin, sync::Arc};

use futures::FutureExt;
use tokio::{
    sync::{oneshot, watch},
    time::{Duration, sleep, timeout},
};

use self::{
    converse::{Conversation, Over, start},
    resize::Resize,
    stdin::Stdin,
};
use crate::{AttachRequest, Backend, ExecRequest, Streams, client::Client, control::Control};

/// Time for a client to hear the end of a session that is cut off, and to close its connection after any session.
const LINGER: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

impl Command {
    pub(crate) fn streams(&self) -> Streams {
        match self {
            Self::Exec(request) => request.streams,
            Self::Attach(request) => request.streams,
        }
    }
}

/// Runs the session.
pub(crate) async fn run(backend: Arc<dyn Backend>, command: Command, mut client: Client, control: &Control) {
    let (ending, ended) = watch::channel(false);
    let mut started = tokio::select! {
        started = start(&*backend, &command) => started,
        interruption = control.interrupted(Duration::ZERO) => Err(interruption.into()),
    };
    let (leave, left) = oneshot::channel();
    let (stdin, terminal, leave) = match &mut started {
        Ok(running) => (running.stdin.take(), running.terminal.take(), running.leaves_with_input.then_some(leave)),
        Err(_) => (None, None, None),
    };
    let stdin = Stdin::new(stdin, command.streams().terminal, ended.clone(), leave, &control.idle);
    let mut feed = pin!(feed::feed(&mut client.source, stdin, Resize::new(terminal)).fuse());
    let over = match started {
        Ok(running) => {
            let (leaves_to_end, owned) = (client.leaves_to_end, matches!(command, Command::Exec(_)));
            let conversation = Conversation { control, ending: &ending, ended, leaves_to_end, owned, left };
            conversation.run(running, &mut client.outputs, feed.as_mut()).await
        }
        Err(over) => over,
    };
    // What still comes in is thrown away.
    ending.send_replace(true);
    let Over::Told { outcome, code, hurry } = over else { return };
    let status = outcome.document(client.outputs.version);
    let impatience = async {
        if hurry {
            sleep(LINGER).await;
        } else {
            control.idle.expired().await;
        }
    };
    tokio::select! {
        () = client.outputs.tell(&status, code) => {}
        _ = &mut feed => return,
        () = control.socket.gone() => return,
        () = impatience => return,
    }
    // Closing while the client still sends would make the kernel throw away what is under way to it.
    let closed = async {
        tokio::select! {
            _ = &mut feed => {}
            () = control.socket.gone() => {}
        }
    };
    // One that stays is left.
    let _ = timeout(LINGER, closed).await;
}
