//! Runs each test on a node of its own, with the usual arguments of a test program.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{Node, cgroup, isolation, patient, programs, programs::Programs, server};

/// Begin of the names of cgroups and folders of a run; its process ID follows.
const PREFIX: &str = "tripod-tests";
/// Name of the test, for the stages.
pub(crate) const NAME: &str = "TRIPOD_TESTS_NAME";
/// Folder of the test, for the stages.
pub(crate) const FOLDER: &str = "TRIPOD_TESTS_FOLDER";

/// File that a test leaves when it has passed: the exit status went through many hands.
const PASSED: &str = "passed";

/// Longest time of one test.
const LIMIT: Duration = Duration::from_secs(400);

/// Lines of the daemon's log that are shown of a test that failed.
const SHOWN_LINES: usize = 60;

/// A test: what it proves is its name.
#[derive(Clone, Copy)]
pub struct Test {
    /// Path of the function.
    pub name: &'static str,
    /// The function.
    pub run: fn(Node) -> LocalBoxFuture<'static, Node>,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Lists functions as tests. One that is not listed is dead code, which the compiler tells.
#[macro_export]
macro_rules! tests {
    ($($function:ident),+ $(,)?) => {
        /// The tests of this file.
        pub(crate) const TESTS: &[$crate::Test] = &[$($crate::Test {
            name: concat!(module_path!(), "::", stringify!($function)),
            run: |mut node| Box::pin(async move {
                $function(&mut node).await;
                node
            }),
        }),+];
    };
}

/// The program: runs what the arguments ask for, or the stage that the environment names. `kept` is where logs of tests
/// that failed are put.
pub fn run(tests: &'static [&'static [Test]], kept: &'static str) -> ExitCode {
    match env::var(isolation::STAGE).as_deref() {
        Ok("enter") => return isolation::enter(),
        Ok("join") => return isolation::join(),
        Ok("init") => return isolation::init(),
        Ok("udp-echo") => return isolation::udp_echo(),
        Ok("serve") => return server::serve(),
        Ok(_) => return run_here(tests),
        Err(_) => {}
    }
    let mut arguments = Arguments::from_args();
    // Tests wait more than they compute.
    arguments.test_threads.get_or_insert(2 * std::thread::available_parallelism().map_or(2, usize::from));
    let outside = Arc::new(Outside { kept: kept.into(), programs: OnceLock::new() });
    let trials = tests.iter().copied().flatten().map(|test| {
        let outside = Arc::clone(&outside);
        Trial::test(short(test.name), move || outside.run(test))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Without the name of the test program.
fn short(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

/// Last stage: the test itself, on its node.
fn run_here(tests: &[&[Test]]) -> ExitCode {
    let (name, folder) = (env::var(NAME).expect(NAME), env::var_os(FOLDER).expect(FOLDER));
    let test = tests.iter().copied().flatten().find(|test| test.name == name).expect("a test of this name");
    let programs = Programs::find().expect("the first stage has named them");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = Node::new(PathBuf::from(&folder), programs);
        (test.run)(node).await.finish().await;
    });
    fs::write(Path::new(&folder).join(PASSED), "").expect("say that the test has passed");
    ExitCode::SUCCESS
}

/// What all tests of a run share outside of their nodes.
struct Outside {
    kept: PathBuf,
    programs: OnceLock<Result<Programs, String>>,
}

impl Outside {
    fn programs(&self) -> Result<&Programs, Failed> {
        let found = self.programs.get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Err("these tests make namespaces, mounts and cgroups: run them as root".to_owned());
            }
            remove_abandoned();
            Programs::find()
        });
        found.as_ref().map_err(Failed::from)
    }

    fn run(&self, test: &Test) -> Result<(), Failed> {
        let programs = self.programs()?;
        let group = format!("{PREFIX}-{}-{}", std::process::id(), short(test.name).replace("::", "-"));
        let folder = env::temp_dir().join(&group);
        fs::create_dir(&folder)?;
        cgroup::make(&group)?;
        let output = folder.join("output");
        let child = start(test, &group, &folder, &output, programs)?;
        let ended = wait(child);
        let groups = cgroup::remove(&group);
        let result = match ended {
            Some(status) if status.success() && folder.join(PASSED).exists() => groups.map_err(Failed::from),
            ended => Err(self.describe(test, &folder, ended)),
        };
        fs::remove_dir_all(&folder)?;
        result
    }

    /// What the test said, the end of the daemon's log, and where the whole of it is.
    fn describe(&self, test: &Test, folder: &Path, ended: Option<ExitStatus>) -> Failed {
        let kept = self.kept.join(short(test.name).replace("::", "-"));
        let read = |name: &str| String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap_or_default()).into_owned();
        let (output, log) = (read("output"), read("daemon.log"));
        let _ = fs::create_dir_all(&kept);
        for name in ["output", "daemon.log", "registry.log"] {
            let _ = fs::copy(folder.join(name), kept.join(name));
        }
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        let how = match ended {
            Some(status) => format!("it failed ({status})"),
            None => format!("it was killed after {:?}", patient(LIMIT)),
        };
        Failed::from(format!("{how}; logs are in {}\n{output}\n--- end of the daemon's log\n{tail}", kept.display()))
    }
}

fn start(test: &Test, group: &str, folder: &Path, output: &Path, programs: &Programs) -> Result<Child, Failed> {
    let output = File::create(output)?;
    let child = Command::new(env::current_exe()?)
        .env(isolation::STAGE, "enter")
        .env(isolation::GROUP, group)
        .env(NAME, test.name)
        .env(FOLDER, folder)
        .env("RUST_BACKTRACE", "0")
        .env(programs::TRIPOD, &programs.tripod)
        .env(programs::SHIM, &programs.shim)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok(child)
}

/// Waits for a test, and kills it after the limit: its death takes PID 1 of the node along, and that every process.
fn wait(mut child: Child) -> Option<ExitStatus> {
    let until = Instant::now() + patient(LIMIT);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// Removes cgroups and folders of runs that were killed.
fn remove_abandoned() {
    for name in cgroup::abandoned(PREFIX) {
        if let Err(error) = cgroup::remove(&name) {
            eprintln!("{error}");
        }
    }
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let is_abandoned = |name: &str| cgroup::is_abandoned(name, PREFIX) && !cgroup::exists(name);
        if entry.file_name().to_str().is_some_and(is_abandoned) && !cgroup::is_fresh(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
