//! A pod to test with: a shim of its own, a root filesystem made of busybox, cgroups, and nothing left afterwards.

use std::{
    fs::{self, File},
    io::{self, Seek},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::symlink,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{WaitId, WaitIdOptions, waitid},
};
use tempfile::TempDir;
use tripod_shim_protocol::{
    Capabilities, CgroupPlan, DeviceKind, DeviceNode, Event, ExecPlan, ExitRecord, Failure, FromShim, FsOption,
    LaunchPlan, LogTarget, Mount, MountFlags, MountSource, PodPlan, ProcessPlan, Reply, Request, ToShim, VERSION,
    frame,
    wire::{Incoming, Outgoing},
};
use tripod_sys::{memfd, mount, spawn};

/// Longer than anything here takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A shim with its pod.
pub(crate) struct Pod {
    pub(crate) dir: TempDir,
    pub(crate) shim: spawn::Spawned,
    pub(crate) client: Client,
    cgroups: CgroupPlan,
}

/// A connection to a shim.
pub(crate) struct Client {
    socket: UnixStream,
    incoming: Incoming,
    next: u64,
    events: Vec<Event>,
}

// === impl Client ===

impl Client {
    pub(crate) fn connect(path: &Path) -> Client {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, incoming: Incoming::default(), next: 0, events: Vec::new() }
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn send(&mut self, request: Request, fds: Vec<OwnedFd>) -> u64 {
        self.next += 1;
        let bytes = frame::encode(&ToShim { id: self.next, request }, fds.len()).unwrap();
        let mut out = Outgoing::default();
        out.push(bytes, fds);
        out.send(&self.socket).unwrap();
        self.next
    }

    fn receive(&mut self) -> (FromShim, Vec<OwnedFd>) {
        let frame = self.incoming.receive(&self.socket).expect("the shim answers in time").expect("the shim lives");
        (frame::decode(&frame.body).unwrap(), frame.fds)
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, wanted: u64) -> (Result<Reply, Failure>, Vec<OwnedFd>) {
        loop {
            match self.receive() {
                (FromShim::Event(event), _) => self.events.push(event),
                (FromShim::Reply { id, result }, fds) => {
                    assert_eq!(id, wanted, "answers to requests of these tests come in order");
                    return (result, fds);
                }
            }
        }
    }

    /// Waits for `count` answers, in any order.
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Result<Reply, Failure>> {
        let mut answers = Vec::new();
        while answers.len() < count {
            match self.receive() {
                (FromShim::Event(event), _) => self.events.push(event),
                (FromShim::Reply { result, .. }, _) => answers.push(result),
            }
        }
        answers
    }

    /// Asks while another request, `pending`, is not answered.
    pub(crate) fn ask_beside(&mut self, pending: u64, request: Request) -> Reply {
        let wanted = self.send(request, vec![]);
        loop {
            match self.receive() {
                (FromShim::Event(event), _) => self.events.push(event),
                (FromShim::Reply { id, result }, _) if id == wanted => return result.unwrap(),
                (FromShim::Reply { id, result }, _) => panic!("{pending} is answered, as {id}: {result:?}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let id = self.send(request, fds);
        self.answer(id).0
    }

    /// Waits for an event that `pick` takes; others are kept.
    pub(crate) fn event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some((at, found)) = self.events.iter().enumerate().find_map(|(at, e)| Some((at, pick(e)?))) {
                self.events.remove(at);
                return found;
            }
            match self.receive() {
                (FromShim::Event(event), _) => self.events.push(event),
                (FromShim::Reply { id, .. }, _) => panic!("an answer to {id} that nobody waits for"),
            }
        }
    }

    pub(crate) fn exit(&mut self, id: &str) -> ExitRecord {
        self.event(|event| match event {
            Event::Exited { container, record } if container == id => Some(record.clone()),
            _ => None,
        })
    }

    pub(crate) fn exec_exit(&mut self, name: &str) -> i32 {
        self.event(|event| match event {
            Event::ExecExited { exec, code } if exec == name => Some(*code),
            _ => None,
        })
    }
}

// === impl Pod ===

impl Pod {
    /// Starts a shim, without setting up the pod.
    pub(crate) fn bare() -> Pod {
        assert!(rustix::process::geteuid().is_root(), "these tests make namespaces and mounts and need root");
        let dir = tempfile::Builder::new().prefix("tripod-shim-").tempdir().unwrap();
        let socket = dir.path().join("shim.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let errors = File::create(dir.path().join("shim.err")).unwrap();
        let fds = [null.as_fd(), null.as_fd(), errors.as_fd(), listener.as_fd()];
        let shim = spawn::spawn(program(), &["tripod-shim", "pod1"], &[], &fds).unwrap();
        let client = Client::connect(&socket);
        Pod { dir, shim, client, cgroups: CgroupPlan::default() }
    }

    /// Starts a shim and sets the pod up.
    pub(crate) fn new(change: impl FnOnce(&mut PodPlan)) -> Pod {
        let mut pod = Pod::bare();
        let mut plan = PodPlan {
            pod: "pod1".into(),
            dir: pod.path().to_owned(),
            private_ipc: true,
            hostname: Some("pod-host".into()),
            shm_size: Some(1 << 20),
            ..PodPlan::default()
        };
        change(&mut plan);
        let empty = empty_namespace().try_clone_to_owned().unwrap();
        let ready = pod.client.ask(Request::Setup(Box::new(plan)), vec![empty]).unwrap();
        assert_eq!(ready, Reply::Ready { pid: pod.shim.pid.as_raw_nonzero().get(), version: VERSION });
        pod
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A root filesystem with busybox under its usual names.
    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        let root = self.path().join("rootfs").join(name);
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        let copy = "cp /bin/busybox \"$0\" || echo \"Debian's package busybox-static is needed\" >&2";
        write_by(copy, &root.join("bin/busybox"), b"");
        for applet in [
            "sh", "true", "false", "echo", "cat", "ls", "id", "sleep", "mount", "umount", "head", "printf", "kill",
            "ps", "hostname", "stat", "touch", "mkdir", "readlink", "pwd", "env", "yes", "dd", "tr", "stty", "wc",
            "chown", "seq", "mkfifo", "grep", "ln", "cp", "chmod", "tty",
        ] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        root
    }

    /// The rootfs as it travels: a detached mount.
    pub(crate) fn detached(root: &Path) -> OwnedFd {
        mount::clone_path(None, root, false).unwrap()
    }

    /// Cgroups for a container, one directory per hierarchy, removed with the pod.
    pub(crate) fn cgroups(&mut self) -> CgroupPlan {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tripod-shim-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let of_type = |fstype: &str| -> Vec<PathBuf> {
            let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            fields.filter(|f| f[2] == fstype).map(|f| PathBuf::from(f[1]).join(&name)).collect()
        };
        let v1 = of_type("cgroup");
        let plan = if v1.is_empty() {
            CgroupPlan { dirs: of_type("cgroup2"), unified: true }
        } else {
            CgroupPlan { dirs: v1, unified: false }
        };
        for dir in &plan.dirs {
            fs::create_dir(dir).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !plan.unified && dir.join(file).exists() {
                    fs::copy(dir.parent().unwrap().join(file), dir.join(file)).unwrap();
                }
            }
        }
        self.cgroups.dirs.extend(plan.dirs.iter().cloned());
        plan
    }

    /// Removes a cgroup when the pod is gone.
    pub(crate) fn remove_later(&mut self, cgroup: PathBuf) {
        self.cgroups.dirs.push(cgroup);
    }

    /// A plan for a shell command, with the mounts that every container has, and a log.
    pub(crate) fn plan(&self, id: &str, command: &str) -> LaunchPlan {
        LaunchPlan {
            container: id.into(),
            process: process(&["/bin/sh", "-c", command]),
            mounts: usual_mounts(),
            devices: usual_devices(),
            log: Some(LogTarget { path: self.log_path(id) }),
            ..LaunchPlan::default()
        }
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.path().join("logs").join(id).join("0.log")
    }

    pub(crate) fn launch(&mut self, plan: LaunchPlan) -> Result<Reply, Failure> {
        let root = self.rootfs(&plan.container);
        self.launch_in(&root, plan)
    }

    pub(crate) fn launch_in(&mut self, root: &Path, plan: LaunchPlan) -> Result<Reply, Failure> {
        self.client.ask(Request::Launch(Box::new(plan)), vec![Pod::detached(root)])
    }

    /// Runs a plan to its end and gives the record and all text of the log.
    pub(crate) fn run_plan(&mut self, plan: LaunchPlan) -> (ExitRecord, String) {
        let id = plan.container.clone();
        self.launch(plan).unwrap();
        (self.client.exit(&id), self.text(&id))
    }

    /// Runs a shell command in a new container and gives exit code and output.
    pub(crate) fn run(&mut self, id: &str, command: &str) -> (i32, String) {
        let (record, text) = self.run_plan(self.plan(id, command));
        (record.code, text)
    }

    /// The lines of a container's log, without time.
    pub(crate) fn log(&self, id: &str) -> Vec<(String, char, String)> {
        parse_log(&fs::read_to_string(self.log_path(id)).unwrap())
    }

    /// What a container has written, as one text.
    pub(crate) fn text(&self, id: &str) -> String {
        let mut text = String::new();
        for (_, tag, line) in self.log(id) {
            text.push_str(&line);
            if tag == 'F' {
                text.push('\n');
            }
        }
        text
    }

    /// Runs a command in a container and gives exit code, output and error output.
    pub(crate) fn exec(
        &mut self,
        container: &str,
        name: &str,
        argv: &[&str],
    ) -> Result<(i32, String, String), Failure> {
        self.exec_plan(ExecPlan { exec: name.into(), container: container.into(), process: process(argv) })
    }

    /// The same with all that a plan can say.
    pub(crate) fn exec_plan(&mut self, plan: ExecPlan) -> Result<(i32, String, String), Failure> {
        let (out, err, name) = (memory_file(), memory_file(), plan.exec.clone());
        let fds = vec![File::open("/dev/null").unwrap().into(), copy(&out), copy(&err)];
        self.client.ask(Request::Exec(Box::new(plan)), fds)?;
        let code = self.client.exec_exit(&name);
        Ok((code, contents(out), contents(err)))
    }

    pub(crate) fn pid_of(reply: &Reply) -> i32 {
        match reply {
            Reply::Started { pid, .. } => *pid,
            other => panic!("not started: {other:?}"),
        }
    }

    pub(crate) fn shutdown(&mut self) {
        assert_eq!(self.client.ask(Request::Shutdown, vec![]), Ok(Reply::Done));
        self.wait_for_shim();
    }

    pub(crate) fn wait_for_shim(&self) {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.shim.pidfd, PollFlags::IN)], Some(&timeout)).unwrap();
        waitid(WaitId::PidFd(self.shim.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the shim said: {}", fs::read_to_string(self.path().join("shim.err")).unwrap_or_default());
        }
        let alive = || {
            waitid(WaitId::PidFd(self.shim.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
                .is_ok_and(|status| status.is_none())
        };
        if alive() {
            let mut goodbye = Client::connect(&self.path().join("shim.sock"));
            goodbye.send(Request::Shutdown, vec![]);
            let timeout = Timespec { tv_sec: 12, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&self.shim.pidfd, PollFlags::IN)], Some(&timeout));
        }
        if alive() {
            let _ = tripod_sys::signal::send(&self.shim.pidfd, 9);
            let _ = waitid(WaitId::PidFd(self.shim.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        for dir in &self.cgroups.dirs {
            // What was killed leaves its cgroup a moment after its parent has learnt of it.
            let end = Instant::now() + Duration::from_secs(2);
            while fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// The shim's binary as the daemon has it: one sealed file in memory, whose pages all shims share.
fn program() -> BorrowedFd<'static> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    let load = || {
        let binary = std::env::var_os("TRIPOD_SHIM").map_or(env!("CARGO_BIN_EXE_tripod-shim").into(), PathBuf::from);
        memfd::seal("tripod-shim", &fs::read(binary).unwrap()).unwrap()
    };
    PROGRAM.get_or_init(load).as_fd()
}

/// What the daemon makes once for all its shims.
pub(crate) fn empty_namespace() -> BorrowedFd<'static> {
    static EMPTY: OnceLock<OwnedFd> = OnceLock::new();
    EMPTY.get_or_init(|| tripod_sys::root::empty_namespace().unwrap()).as_fd()
}

/// Writes an executable file.
pub(crate) fn write_program(path: &Path, text: &str) {
    write_by("cat >\"$0\"", path, text.as_bytes());
}

/// Has a shell write an executable file. Another test may fork while it is open for writing, and as long as that child
/// has not executed its program the kernel executes no file that it holds open so (ETXTBSY): so this process never does.
fn write_by(script: &str, path: &Path, input: &[u8]) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{script}; exec chmod 755 \"$0\"")]).arg(path).stdin(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    io::Write::write_all(&mut shell.stdin.take().unwrap(), input).unwrap();
    assert!(shell.wait().unwrap().success(), "write {}", path.display());
}

/// Root with the rights that containers usually have.
pub(crate) fn process(argv: &[&str]) -> ProcessPlan {
    let usual = vec![0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
    ProcessPlan {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/bin".into(), "HOME=/root".into()],
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: usual.clone(),
            permitted: usual.clone(),
            effective: usual,
            ..Capabilities::default()
        },
        ..ProcessPlan::default()
    }
}

pub(crate) fn fs_mount(target: &str, fstype: &str, options: &[(&str, Option<&str>)]) -> Mount {
    let options = options.iter().map(|(k, v)| FsOption { key: (*k).into(), value: v.map(Into::into) }).collect();
    Mount {
        target: target.into(),
        source: MountSource::Filesystem { fstype: fstype.into(), options },
        flags: MountFlags {
            nosuid: true,
            noexec: true,
            nodev: fstype != "tmpfs" && fstype != "devpts",
            ..MountFlags::default()
        },
        propagation: None,
        map_ids: false,
    }
}

pub(crate) fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        target: target.into(),
        source: MountSource::Bind { path: path.to_owned(), recursive: true },
        flags: MountFlags::default(),
        propagation: None,
        map_ids: false,
    }
}

/// What every container has, but for cgroups.
pub(crate) fn usual_mounts() -> Vec<Mount> {
    let pts = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let mut sys = fs_mount("/sys", "sysfs", &[]);
    sys.flags.read_only = true;
    let shm = Mount {
        target: "/dev/shm".into(),
        source: MountSource::PodShm,
        flags: MountFlags { nosuid: true, nodev: true, noexec: true, ..MountFlags::default() },
        propagation: None,
        map_ids: false,
    };
    vec![
        fs_mount("/proc", "proc", &[]),
        fs_mount("/dev", "tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))]),
        fs_mount("/dev/pts", "devpts", &pts),
        fs_mount("/dev/mqueue", "mqueue", &[]),
        shm,
        sys,
    ]
}

/// What every container has in `/dev`.
pub(crate) fn usual_devices() -> Vec<DeviceNode> {
    let node = |(name, major, minor): (&str, u32, u32)| DeviceNode {
        path: Path::new("/dev").join(name),
        kind: DeviceKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let nodes = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    nodes.into_iter().map(node).collect()
}

/// A line that is still being written is none.
pub(crate) fn parse_log(text: &str) -> Vec<(String, char, String)> {
    let line = |line: &str| {
        let mut fields = line.splitn(4, ' ');
        let (time, stream, tag) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        assert_eq!(time.len(), 30, "{line}");
        (stream.to_owned(), tag.chars().next().unwrap(), fields.next().unwrap().to_owned())
    };
    text.split_inclusive('\n').filter_map(|text| text.strip_suffix('\n')).map(line).collect()
}

pub(crate) fn memory_file() -> File {
    rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
}

pub(crate) fn copy(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

pub(crate) fn contents(mut file: File) -> String {
    file.rewind().unwrap();
    std::io::read_to_string(file).unwrap()
}

/// Waits until `done`, which must come to pass.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A network namespace that a thread holds.
pub(crate) struct Namespace {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    tid: i32,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let (stop, wait) = std::sync::mpsc::channel();
        let (tell, tid) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tripod_sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = wait.recv();
        });
        Namespace { stop: Some(stop), thread: Some(thread), tid: tid.recv().unwrap() }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.stop.take();
        let _ = self.thread.take().unwrap().join();
    }
}
