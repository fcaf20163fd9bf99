//! The daemon under test: started, killed, started again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::{Cri, eventually, peer, programs::Programs};

/// How long a daemon may take to answer, with everything that it recovers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a daemon may take to end after SIGTERM; it may have to wait for the disk.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Settings of a daemon: dotted names and values in TOML.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Settings {
    /// Sets a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &format!("{value:?}"));
    }

    /// Sets anything.
    pub fn raw(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Sets a variable of the environment.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    fn write(&self, file: &Path) {
        let text: String = self.values.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::write(file, text).expect("write the settings");
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts a daemon with its log and settings in `folder`, and waits until it answers.
    pub(crate) async fn start(
        programs: &Programs,
        folder: &Path,
        root: &Path,
        state: &Path,
        settings: &Settings,
    ) -> Self {
        let mut daemon = Self::spawn(programs, folder, root, state, settings);
        let cri = daemon.cri();
        eventually("the daemon", START_LIMIT, async || {
            if let Ok(Some(status)) = daemon.process.try_wait() {
                panic!("the daemon ended at its start: {status}");
            }
            cri.answers().await.then_some(())
        })
        .await;
        daemon
    }

    /// Starts a daemon and does not wait.
    pub(crate) fn spawn(programs: &Programs, folder: &Path, root: &Path, state: &Path, settings: &Settings) -> Self {
        let (config, socket) = (folder.join("config.toml"), state.join("tripod.sock"));
        let mut settings = settings.clone();
        settings.text("shim.program", &programs.shim.to_string_lossy());
        settings.write(&config);
        let log = File::options().create(true).append(true).open(folder.join("daemon.log")).expect("the daemon's log");
        let mut command = if peer::chosen() {
            peer::command(folder, root, state, &socket)
        } else {
            let mut command = Command::new(&programs.tripod);
            command.arg("serve").arg("--config").arg(&config).arg("--root").arg(root);
            command.arg("--state").arg(state).arg("--socket").arg(&socket);
            command
        };
        let process = command
            .envs(&settings.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the daemon's log"))
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        Self { process, socket }
    }

    /// A client of this daemon.
    pub fn cri(&self) -> Cri {
        Cri::new(&self.socket)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().expect("kill the daemon");
        self.process.wait().expect("wait for the daemon");
    }

    /// Asks it to end with SIGTERM.
    pub async fn stop(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.process.id().cast_signed()).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ask the daemon to end");
        eventually("the end of the daemon after SIGTERM", STOP_LIMIT, async || {
            self.process.try_wait().expect("wait for the daemon")
        })
        .await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
