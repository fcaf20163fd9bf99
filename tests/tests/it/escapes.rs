//! Ways out of containers that were found in runtimes over the years, tried on this one. Each must fail, and what is tried
//! must be tried for real: a test that races says how often.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{SealFlags, fcntl_get_seals};
use tripod_cri_api::v1::{Capability, ContainerConfig, NamespaceMode, PodSandboxConfig};
use tripod_tests::{
    Cri, Image, Layer, Node, busybox, digest, eventually, host_pod, image_spec, intruder, mount, security_of, shell,
    tests, unconfined,
};

use crate::{containers::pod_of, filesystem::masked};

tests![
    nothing_of_the_host_is_in_sight,
    the_shim_cannot_be_overwritten,
    working_directories_lead_nowhere,
    exchanged_targets_stay_inside,
    exchanged_masked_paths_stay_inside,
    a_foreign_dev_fakes_neither_null_nor_console,
    mounts_reach_no_file_of_proc,
    who_watches_newcomers_sees_nothing,
    who_may_trace_newcomers_sees_nothing,
];

/// Time of a race, at least; on a slow machine one round may take longer. Thousands of rounds are in the unit tests of the
/// look-up itself, `sys/src/inroot/tests.rs`.
const RACE: Duration = Duration::from_secs(6);

/// A file of the host. No container may read it.
const MARK: &str = "/run/host-mark";

const INTRUDER: &str = "registry.test/intruder:1";

fn mark() {
    fs::write(MARK, "host").unwrap();
}

/// What is mounted on the node.
fn mounted() -> Vec<String> {
    let points = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut points: Vec<_> = points.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
    points.sort();
    points
}

/// The container may end, and take this command along, before the command has.
async fn tell_to_end(cri: &Cri, id: &str) {
    let code = cri.exec(id, &["/bin/touch", "/stop"], 40).await.unwrap().exit_code;
    assert!([0, 137].contains(&code), "{code}");
}

async fn with_intruder(node: &mut Node) -> Cri {
    node.registry().await.push("intruder:1", &Image::new(vec![Layer::gzip(intruder())]));
    let cri = node.ready().await;
    cri.pull(INTRUDER).await.unwrap();
    mark();
    cri
}

fn intruding(name: &str, script: &str) -> ContainerConfig {
    let mut config = shell(name, script);
    config.image = Some(image_spec(INTRUDER));
    config
}

fn shared_pod(name: &str) -> PodSandboxConfig {
    let mut config = host_pod(name);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    config
}

/// Says all that a process can find out about where it is: one thing a line.
const ENUMERATE: &str = r#"
for f in /proc/$$/fd/*; do echo "fd $(readlink $f)"; done
for p in /proc/[0-9]*; do
    for l in exe cwd root; do t=$(readlink $p/$l) && echo "$l $t"; done
    for f in $p/fd/*; do t=$(readlink $f) && echo "fd $t"; done
done 2>/dev/null
tr '\0' '\n' </proc/$$/environ | sed 's/=.*//; s/^/env /'
cut -d' ' -f5 /proc/self/mountinfo | sed 's/^/mount /'
echo "first $(tr '\0' ' ' </proc/1/cmdline | head -n1 | cut -d' ' -f1)"
"#;

/// Whether a line of that is one of those that are known and harmless.
fn is_known(line: &str) -> bool {
    let (kind, what) = line.split_once(' ').unwrap_or((line, ""));
    match kind {
        "fd" => {
            what.is_empty()
                || ["/dev/null", "/null"].contains(&what)
                || ["pipe:[", "/dev/pts/"].iter().any(|start| what.starts_with(start))
        }
        "exe" => what == "/bin/busybox",
        "cwd" | "root" => what == "/",
        "env" => ["PATH", "FROM_IMAGE", "HOSTNAME", "HOME", "TERM", "PWD", "SHLVL"].contains(&what),
        "mount" => {
            ["/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&what)
                || ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(what).starts_with(top))
        }
        "first" => ["/bin/sh", "sleep", "tripod-shim"].contains(&what),
        "" => true,
        _ => false,
    }
}

fn all_known(who: &str, text: &str) {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    let unknown: Vec<_> = lines.iter().filter(|line| !is_known(line)).collect();
    assert!(unknown.is_empty(), "{who} sees {unknown:?}");
    for kind in ["fd ", "exe ", "env ", "mount ", "first "] {
        assert!(lines.iter().any(|line| line.starts_with(kind)), "{who} saw no {kind}: {text}");
    }
}

async fn nothing_of_the_host_is_in_sight(node: &mut Node) {
    let cri = node.ready().await;
    for (name, config) in [("own", host_pod("own")), ("shared", shared_pod("shared"))] {
        let pod = cri.run_pod(&config).await.unwrap();
        let long = cri.run(&pod, &config, &shell("long", "sleep 1000")).await.unwrap();
        let mut trace = masked("trace", ENUMERATE);
        let capabilities = Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Capability::default() };
        security_of(&mut trace).capabilities = Some(capabilities);
        let mut tty = masked("tty", ENUMERATE);
        tty.tty = true;
        for config_of in [masked("first", ENUMERATE), tty] {
            let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
            all_known(&format!("{:?} in pod {name}", config_of.metadata), &text);
        }
        all_known(&format!("an exec in pod {name}"), &cri.sh(&long, ENUMERATE).await);
        // Who may look at everything sees the reaper, which has an empty root and nothing open.
        let (_, text) = cri.outcome(&pod, &config, &trace).await.unwrap();
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("exe /memfd:tripod-shim") && *line != "fd anon_inode:[signalfd]")
            .map(|line| format!("{line}\n"))
            .collect();
        all_known(&format!("a tracer in pod {name}"), &text);
    }
}

/// Programs of running shims, as links in /proc.
fn shims() -> Vec<PathBuf> {
    let links = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("exe"));
    links
        .filter(|link| fs::read_link(link).is_ok_and(|to| to.to_string_lossy().contains("memfd:tripod-shim")))
        .collect()
}

/// CVE-2019-5736, and writes to a program's pages in the manner of CVE-2022-0847.
async fn the_shim_cannot_be_overwritten(node: &mut Node) {
    let program = std::env::var("TRIPOD_SHIM").unwrap();
    let before = digest(&fs::read(&program).unwrap());
    let tree = busybox().symlink("bin/self", "/proc/self/exe").file("bin/script", 0o755, "#!/proc/self/exe\n");
    node.registry().await.push("self:1", &Image::new(vec![Layer::gzip(tree)]));
    let cri = node.ready().await;
    cri.pull("registry.test/self:1").await.unwrap();
    let config = shared_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut overwriter = shell(
        "overwriter",
        "while ! test -e /stop; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in */busybox|'') ;; \
         *) echo overwritten 2>/dev/null >$p/exe && echo wrote; tail -c 9 /bin/busybox 2>/dev/null >>$p/exe && echo added; \
         echo tried;; esac; done; done 2>/dev/null",
    );
    let capabilities = Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Capability::default() };
    security_of(&mut overwriter).capabilities = Some(capabilities);
    let id = cri.run(&pod, &config, &unconfined(overwriter)).await.unwrap();
    for (number, command) in ["/proc/self/exe", "/bin/self", "/bin/script"].into_iter().enumerate() {
        let mut config_of = shell(&format!("self{number}"), "");
        config_of.command = vec![command.to_owned()];
        config_of.image = Some(image_spec("registry.test/self:1"));
        // It may start: what it is then is a shim that nobody talks to.
        if let Ok(started) = cri.run(&pod, &config, &config_of).await {
            assert_ne!(cri.exited(&started).await.exit_code, 0, "{command}");
        }
        for _ in 0..10 {
            let _ = cri.exec(&id, &[command], 5).await;
        }
    }
    tell_to_end(&cri, &id).await;
    let status = cri.exited(&id).await;
    let text = tripod_tests::log_text(&fs::read_to_string(&status.log_path).unwrap());
    assert!(text.contains("tried"), "the reaper at least was there to be tried");
    assert!(!text.contains("wrote") && !text.contains("added"), "{text}");
    // Root of the host cannot either: it is sealed.
    let running = shims();
    assert!(!running.is_empty());
    for link in running {
        let file = fs::File::open(&link).unwrap();
        let sealed = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        assert!(fcntl_get_seals(&file).unwrap().contains(sealed));
        assert!(fs::write(&link, "overwritten").is_err());
        assert_eq!(digest(&fs::read(&link).unwrap()), before);
    }
    assert_eq!(digest(&fs::read(&program).unwrap()), before);
    cri.run_in_pod(&host_pod("next"), &shell("main", "sleep 1000")).await.unwrap();
}

/// CVE-2024-21626: through what a runtime has left open.
async fn working_directories_lead_nowhere(node: &mut Node) {
    let mut tree = busybox();
    for number in 3..16 {
        tree = tree.symlink(&format!("fd{number}"), &format!("/proc/self/fd/{number}"));
    }
    node.registry().await.push("cwd:1", &Image::new(vec![Layer::gzip(tree)]));
    let cri = node.ready().await;
    cri.pull("registry.test/cwd:1").await.unwrap();
    mark();
    let (pod, config) = pod_of(&cri).await;
    let look = format!("pwd; cat ../../../../../../../..{MARK} .{MARK}; ls ../../.. | grep -c host");
    let links = (3..16).map(|number| format!("/fd{number}"));
    let paths = (3..16).map(|number| format!("/proc/self/fd/{number}"));
    let more =
        ["/proc/self/cwd", "/proc/self/root", "/proc/1/root/tmp", "/proc/self/fd/../../self/fd/7"].map(String::from);
    for (number, path) in links.chain(paths).chain(more).enumerate() {
        let mut config_of = shell(&format!("main{number}"), &look);
        config_of.image = Some(image_spec("registry.test/cwd:1"));
        config_of.working_dir.clone_from(&path);
        let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
        assert!(error.message().contains("working directory"), "{path}: {error}");
    }
    // The same for who puts the link there later.
    let mut config_of = shell("exec", "rmdir /work; ln -s /proc/self/fd/7 /work; touch /ready; sleep 1000");
    config_of.working_dir = "/work".to_owned();
    let id = cri.run(&pod, &config, &config_of).await.unwrap();
    let exec = async || cri.exec(&id, &["/bin/sh", "-c", &look], 5).await;
    eventually("an exec that is refused", Duration::from_secs(40), async || {
        let error = exec().await.err().filter(|error| error.code() != tonic::Code::DeadlineExceeded)?;
        assert!(error.message().contains("working directory"), "{error}");
        Some(())
    })
    .await;
}

/// A folder of the host that an intruder's container exchanges for links, while other containers get it too.
struct Race {
    pod: String,
    config: PodSandboxConfig,
    shared: PathBuf,
    before: Vec<String>,
}

impl Race {
    async fn begin(node: &Node, cri: &Cri) -> Race {
        let (pod, config) = pod_of(cri).await;
        let shared = node.folder().join("shared");
        fs::create_dir_all(shared.join("place/below")).unwrap();
        fs::write(shared.join("place/secret"), "secret").unwrap();
        for (name, target) in [
            ("root", "/"),
            ("up", "../../../../../../../../../../run"),
            ("proc", "/proc/self"),
            ("host", shared.to_str().unwrap()),
        ] {
            symlink(target, shared.join(name)).unwrap();
        }
        let before = mounted();
        let mut exchanger = intruding("exchanger", "intruder exchange /shared place root up proc host");
        exchanger.mounts = vec![mount(shared.to_str().unwrap(), "/shared")];
        let id = cri.run(&pod, &config, &exchanger).await.unwrap();
        let log = cri.status(&id).await.unwrap().log_path;
        let begun = async || fs::read_to_string(&log).ok()?.contains("begun").then_some(());
        eventually("the exchanger", Duration::from_secs(20), begun).await;
        Race { pod, config, shared, before }
    }

    /// Runs containers until the time is over; they say what must not be. Gives how many started and how many did not.
    async fn run(&self, cri: &Cri, change: impl Fn(&mut ContainerConfig)) -> (usize, usize) {
        let script = format!(
            "cat {MARK} 2>/dev/null; echo x 2>/dev/null >/proc/sysrq-trigger && echo sysrq; \
             head -c1 /proc/interrupts | grep -q . && echo unmasked; echo end"
        );
        let (begin, mut started, mut failed) = (Instant::now(), 0, 0);
        // One that started is the least; others take the processors, too.
        while begin.elapsed() < RACE || (started == 0 && begin.elapsed() < 10 * RACE) {
            let mut config_of = masked("victim", &script);
            config_of.metadata.as_mut().unwrap().attempt = u32::try_from(started + failed).unwrap();
            config_of.mounts = vec![mount(self.shared.to_str().unwrap(), "/shared")];
            change(&mut config_of);
            let id = cri.create(&self.pod, &self.config, &config_of).await.unwrap();
            if cri.start(&id).await.is_ok() {
                let status = cri.exited(&id).await;
                let text = tripod_tests::log_text(&fs::read_to_string(&status.log_path).unwrap());
                assert!(text.ends_with("end\n") && !text.contains("host"), "{text}");
                assert!(!text.contains("sysrq") && !text.contains("unmasked"), "{text}");
                fs::remove_file(&status.log_path).unwrap();
                started += 1;
            } else {
                failed += 1;
            }
            cri.remove(&id).await.unwrap();
        }
        assert_eq!(mounted(), self.before, "something was mounted on the host");
        assert_eq!(fs::read_to_string(MARK).unwrap(), "host");
        let null = fs::metadata("/dev/null").unwrap();
        assert!(null.file_type().is_char_device() && null.rdev() == 0x103);
        (started, failed)
    }
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2023-27561.
async fn exchanged_targets_stay_inside(node: &mut Node) {
    let cri = with_intruder(node).await;
    let race = Race::begin(node, &cri).await;
    let trap = node.folder().join("trap");
    fs::create_dir(&trap).unwrap();
    fs::write(trap.join("file"), "trap").unwrap();
    let (folder, file) = (trap.to_str().unwrap().to_owned(), trap.join("file").to_str().unwrap().to_owned());
    let made = |entries: &Path| fs::read_dir(entries).unwrap().count();
    let (etc, run) = (made(Path::new("/etc")), made(Path::new("/run")));
    let (started, failed) = race
        .run(&cri, |config| {
            let targets =
                [(&folder, "/shared/place/below"), (&folder, "/shared/place/new/deep"), (&file, "/shared/place/x")];
            config.mounts.extend(targets.map(|(source, target)| mount(source, target)));
        })
        .await;
    assert!(started > 0, "{started} started, {failed} failed");
    assert_eq!((made(Path::new("/etc")), made(Path::new("/run"))), (etc, run), "something was made on the host");
}

/// CVE-2025-31133, CVE-2025-52881: what is masked and what is protected are paths too.
async fn exchanged_masked_paths_stay_inside(node: &mut Node) {
    let cri = with_intruder(node).await;
    let race = Race::begin(node, &cri).await;
    let (started, failed) = race
        .run(&cri, |config| {
            let security = security_of(config);
            security.masked_paths.extend(["/shared/place/secret", "/shared/place/below"].map(str::to_owned));
            security.readonly_paths.extend(["/shared/place", "/shared/place/sys"].map(str::to_owned));
        })
        .await;
    assert!(started > 0, "{started} started, {failed} failed");
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2026-88264, CVE-2026-88265: a `/dev` that others write to.
async fn a_foreign_dev_fakes_neither_null_nor_console(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let dev = node.folder().join("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (link, target) in [
        ("null", "/proc/sys/kernel/core_pattern"),
        ("console", "/proc/sys/kernel/core_pattern"),
        ("pts/ptmx", "/proc/sys/kernel/core_pattern"),
        ("pts/0", "/proc/sysrq-trigger"),
    ] {
        symlink(target, dev.join(link)).unwrap();
    }
    let script = "stat -c %t:%T /proc/interrupts; echo fake >/proc/interrupts; \
                  (echo fake >/proc/sys/kernel/core_pattern) 2>&1 | grep -o Read-only; \
                  (echo fake >/dev/console) 2>&1 | grep -o Read-only";
    let mut config_of = masked("main", script);
    config_of.mounts = vec![mount(dev.to_str().unwrap(), "/dev")];
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text, "1:3\nRead-only\nRead-only\n");
    // What claims to multiplex terminals is looked at.
    config_of.tty = true;
    config_of.metadata.as_mut().unwrap().name = "tty".into();
    let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
    assert!(error.message().contains("/dev/pts/ptmx"), "{error}");
    // With a right one, the console is where it leads: nowhere.
    fs::remove_file(dev.join("pts/ptmx")).unwrap();
    config_of.metadata.as_mut().unwrap().name = "pts".into();
    config_of.log_path = "pts.log".into();
    config_of.mounts.push(mount("/dev/pts", "/dev/pts"));
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text.replace('\r', ""), "1:3\nRead-only\nRead-only\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

/// CVE-2019-16884, CVE-2025-52881: a mount over what the runtime, or the kernel for it, reads and writes in /proc.
async fn mounts_reach_no_file_of_proc(node: &mut Node) {
    let tree = busybox().symlink("innocent", "/proc/self").symlink("sysctl", "/proc/sys/kernel");
    node.registry().await.push("links:1", &Image::new(vec![Layer::gzip(tree)]));
    let cri = node.ready().await;
    cri.pull("registry.test/links:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let fake = node.folder().join("fake");
    fs::create_dir(&fake).unwrap();
    fs::write(fake.join("file"), "").unwrap();
    let (folder, file) = (fake.to_str().unwrap().to_owned(), fake.join("file").to_str().unwrap().to_owned());
    let attempts = [
        (&folder, "/proc"),
        (&folder, "/proc/self/attr"),
        (&file, "/proc/self/attr/exec"),
        (&file, "/proc/sys/kernel/core_pattern"),
        (&file, "/proc/sysrq-trigger"),
        (&folder, "/innocent/attr"),
        (&file, "/innocent/attr/exec"),
        (&file, "/sysctl/core_pattern"),
    ];
    for (number, (source, target)) in attempts.into_iter().enumerate() {
        let mut config_of = masked(&format!("main{number}"), "true");
        config_of.image = Some(image_spec("registry.test/links:1"));
        config_of.mounts = vec![mount(source, target)];
        let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
        assert!(error.message().contains("proc"), "{target}: {error}");
    }
}

/// CVE-2016-9962: a process on its way into a container still has what the runtime has.
async fn who_watches_newcomers_sees_nothing(node: &mut Node) {
    newcomers(node, None).await;
}

/// The same with the capability that lets one look.
async fn who_may_trace_newcomers_sees_nothing(node: &mut Node) {
    newcomers(node, Some("SYS_PTRACE")).await;
}

/// The kernel's version.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

async fn newcomers(node: &mut Node, capability: Option<&str>) {
    let cri = with_intruder(node).await;
    let config = shared_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut watcher = intruding("watcher", &format!("intruder watch {MARK}"));
    if let Some(name) = capability {
        let capabilities = Capability { add_capabilities: vec![name.to_owned()], ..Capability::default() };
        security_of(&mut watcher).capabilities = Some(capabilities);
    }
    let id = cri.run(&pod, &config, &watcher).await.unwrap();
    let log = cri.status(&id).await.unwrap().log_path;
    let begun = async || fs::read_to_string(&log).ok()?.contains("begun").then_some(());
    eventually("the watcher", Duration::from_secs(20), begun).await;
    let (begin, mut rounds) = (Instant::now(), 0);
    while begin.elapsed() < RACE {
        assert_eq!(cri.exec(&id, &["/bin/sh", "-c", "exit 7"], 40).await.unwrap().exit_code, 7);
        rounds += 1;
        // Who joins has to be born in sight where a procfs cannot be made from outside (Linux before 6.17).
        if capability.is_some() && kernel() < (6, 17) {
            continue;
        }
        let mut other = shell(&format!("other{rounds}"), "tty; id -u; cat /proc/1/comm; exit 3");
        other.tty = rounds % 2 == 1;
        let (status, text) = cri.outcome(&pod, &config, &other).await.unwrap();
        let terminal = if other.tty { "/dev/pts/0" } else { "not a tty" };
        assert_eq!((status.exit_code, text.replace('\r', "")), (3, format!("{terminal}\n0\ntripod-reaper\n")));
    }
    tell_to_end(&cri, &id).await;
    let status = cri.exited(&id).await;
    let text = tripod_tests::log_text(&fs::read_to_string(&status.log_path).unwrap());
    let done = text.lines().find_map(|line| line.strip_prefix("done ")).expect("a count");
    assert!(done.parse::<u64>().unwrap() > 100 && rounds > 0, "{done} looks, {rounds} rounds");
    assert!(!text.contains("found"), "{text}");
}
