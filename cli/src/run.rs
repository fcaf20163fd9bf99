//! `run`: a command in a new container, its output here, its exit code ours.

use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tripod_cri_api::v1::{ContainerStatus, CreateContainerRequest, RunPodSandboxRequest, StartContainerRequest};

use crate::{
    CliError, Client, Embed, Embedded,
    args::{PullPolicy, RunArgs},
    life::{Life, State},
    log::{Follower, Sink, Watch},
    pull,
    request::{self, LOG},
    stop,
};

/// Seconds that a container gets to end when the user interrupts it.
const STOP_GRACE: i64 = 10;

/// Exit code for a program that cannot be executed, as shells have it.
const NO_PROGRAM: u8 = 127;

pub(crate) async fn run(args: Box<RunArgs>, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let socket = &args.connection.socket;
    let unreachable = match Client::connect(socket).await {
        Ok(client) => return run_with(client, &args).await,
        Err(CliError::Connect { source, .. }) => source,
        Err(error) => return Err(error),
    };
    if !args.rm {
        let error = CliError::Connect { socket: socket.clone(), source: unreachable };
        return Err(CliError::Usage(format!(
            "{error}\nWithout a daemon, `tripod run` needs --rm: nobody would keep the pod."
        )));
    }
    let started = embed.start(args.local.clone()).await;
    let daemon = started.map_err(|source| CliError::Embed { socket: socket.clone(), source })?;
    let outcome = run_inside(&*daemon, &args).await;
    daemon.stop().await;
    outcome
}

async fn run_inside(daemon: &dyn Embedded, args: &RunArgs) -> Result<ExitCode, CliError> {
    run_with(Client::connect(daemon.socket()).await?, args).await
}

async fn run_with(mut client: Client, args: &RunArgs) -> Result<ExitCode, CliError> {
    let name = args.name.clone().unwrap_or_else(|| format!("run-{}", random(8)));
    let uid = random(32);
    let folder = if args.rm { std::env::temp_dir() } else { request::LOGS_FOLDER.into() };
    let folder = folder.join(format!("tripod-{name}-{}", &uid[..8]));
    // Everything that can be wrong about the arguments is found before anything is made.
    let pod = request::pod(args, &name, &uid, &folder)?;
    request::container(args, &name, "")?;
    let image = image(&mut client, args).await?;
    let container = request::container(args, &name, &image)?;
    let mut logs = Logs::make(folder)?;
    // From here on an interruption must not leave anything behind, so it is heard and not died of.
    let mut interrupts = Interrupts::listen()?;

    let request = RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: String::new() };
    let answer = client.runtime.run_pod_sandbox(request).await.map_err(CliError::call("run the pod"))?;
    let pod_id = answer.into_inner().pod_sandbox_id;
    let create =
        CreateContainerRequest { pod_sandbox_id: pod_id.clone(), config: Some(container), sandbox_config: Some(pod) };
    let outcome = run_container(&mut client, args, create, &logs.folder, &mut interrupts).await;
    // A pod whose container never ran is of no use to anybody.
    logs.keep = !args.rm && outcome.is_ok();
    let cleaned = if logs.keep { Ok(()) } else { stop::remove_pod(&mut client, &pod_id).await };
    let code = outcome?;
    cleaned?;
    Ok(code)
}

/// The ID of the image, pulled if need be.
async fn image(client: &mut Client, args: &RunArgs) -> Result<String, CliError> {
    let found = pull::find(client, &args.image).await?;
    match (args.pull, found) {
        (PullPolicy::Missing | PullPolicy::Never, Some(image)) => Ok(image.id),
        (PullPolicy::Never, None) => {
            let message = format!("image {} is not here: `tripod pull {0}`, or leave --pull out", args.image);
            Err(CliError::NotFound(message))
        }
        _ => pull::pull(client, &args.image, None, args.quiet).await,
    }
}

async fn run_container(
    client: &mut Client,
    args: &RunArgs,
    create: CreateContainerRequest,
    logs: &Path,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, CliError> {
    let answer = client.runtime.create_container(create).await.map_err(CliError::call("create the container"))?;
    let id = answer.into_inner().container_id;
    // From before the start, so that no end is missed.
    let mut life = Life::watch(client, &id).await;
    let start = StartContainerRequest { container_id: id.clone() };
    match client.runtime.start_container(start).await {
        // The command line is at fault, not the runtime.
        Err(status) if status.code() == tonic::Code::InvalidArgument => {
            eprintln!("tripod: {}", status.message());
            return Ok(ExitCode::from(NO_PROGRAM));
        }
        answer => answer.map_err(CliError::call("start the container"))?,
    };
    if args.detach {
        println!("{id}");
        return Ok(ExitCode::SUCCESS);
    }

    let log = logs.join(LOG);
    let mut watch = Watch::new(&log);
    let mut follower = Follower::new(log);
    let failed = || CliError::io("show the container's output");
    let mut sink = Sink::standard().map_err(failed())?;
    loop {
        let ended = tokio::select! {
            () = watch.changed() => None,
            () = life.hint() => match life.state().await {
                State::Ended(status) => Some(status),
                State::Alive => None,
                State::Gone => return Err(CliError::NotFound(format!("somebody has removed container {id}"))),
                State::Unknown(status) => return Err(CliError::call(format!("ask for container {id}"))(*status)),
            },
            times = interrupts.next() => {
                stop_in_background(client, &id, times);
                None
            }
        };
        // The log is complete before the end can be seen, so a look after that shows all of it.
        let shown =
            follower.show(&mut sink).and_then(|()| if ended.is_some() { follower.finish(&mut sink) } else { Ok(()) });
        match shown {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed()(error)),
            _ => {}
        }
        if let Some(status) = ended {
            return Ok(exit_code(&status));
        }
    }
}

/// Stops the container beside the loop that shows its last words: gently at first, then at once.
fn stop_in_background(client: &Client, id: &str, times: usize) {
    let (mut client, id) = (client.clone(), id.to_owned());
    let grace = if times > 1 { 0 } else { STOP_GRACE };
    tokio::spawn(async move {
        if let Err(error) = stop::stop_container(&mut client, id, grace).await {
            eprintln!("tripod: {error}");
        }
    });
}

fn exit_code(status: &ContainerStatus) -> ExitCode {
    if !["", "Completed", "Error"].contains(&status.reason.as_str()) || !status.message.is_empty() {
        eprintln!("tripod: the container ended: {} {}", status.reason, status.message);
    }
    ExitCode::from(u8::try_from(status.exit_code).unwrap_or(u8::MAX))
}

/// The folder of the pod's logs. Without a pod that stays it goes, whatever has happened.
struct Logs {
    folder: PathBuf,
    keep: bool,
}

impl Logs {
    fn make(folder: PathBuf) -> Result<Self, CliError> {
        let failed = || CliError::io(format!("make {}", folder.display()));
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(failed())?;
        }
        // Never one that is there already: in a folder that everybody may write to it could be anything.
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed())?;
        Ok(Self { folder, keep: false })
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            eprintln!("tripod: remove {}: {error}", self.folder.display());
        }
    }
}

/// SIGINT and SIGTERM, counted.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    seen: usize,
}

impl Interrupts {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::io("listen for signals"));
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, seen: 0 })
    }

    /// How many there were, after one more.
    async fn next(&mut self) -> usize {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.seen += 1;
        self.seen
    }
}

/// A word of random hexadecimal digits.
fn random(digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(rand::random::<u32>() % 16, 16).unwrap_or('0')).collect()
}
