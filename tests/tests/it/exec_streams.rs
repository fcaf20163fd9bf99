//! Commands with streams, over every client there is (contract: lines 26 and 28).

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;
use tonic::Code;
use tripod_cri_api::v1::{Int64Value, KeyValue};
use tripod_tests::{
    Client, Cri, Node, Wanted, crictl, crictl_run, host_pod, peer, python, security_of, shell, tests, transports,
    within,
};

tests![
    exit_codes_and_streams_come_over_every_transport,
    older_protocols_are_spoken,
    python_speaks_two_versions,
    crictl_speaks_both_transports,
    crictl_has_a_terminal,
    input_ends_where_the_client_ends_it,
    bytes_are_not_touched,
    very_much_output_comes_whole,
    output_comes_when_it_is_written,
    a_command_has_what_its_container_has,
    a_program_that_is_not_there_is_told_to_the_client,
    a_container_that_does_not_run_has_no_url,
    a_url_works_once,
    what_cannot_be_is_refused,
];

const MEGABYTE: u64 = 1_000_000;

async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    (cri, id)
}

/// A file of random bytes, and its digest.
fn random(node: &Node, bytes: u64) -> (PathBuf, String) {
    let path = node.folder().join(format!("random-{bytes}"));
    let script = format!("head -c {bytes} /dev/urandom >'{0}' && sha256sum <'{0}'", path.display());
    let done = Command::new("sh").arg("-c").arg(script).output().unwrap();
    (path, String::from_utf8_lossy(&done.stdout)[..64].to_owned())
}

async fn exit_codes_and_streams_come_over_every_transport(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        for (last, code) in [("exit 0", 0), ("exit 1", 1), ("exit 126", 126), ("exit 255", 255), ("kill -9 $$", 137)] {
            let script = format!("echo out; echo err >&2; {last}");
            let url = cri.exec_url(&id, &["/bin/sh", "-c", &script], Wanted::OUTPUT).await.unwrap();
            let outcome = Client::new(transport, Wanted::OUTPUT).run(&url, b"").await;
            assert_eq!(outcome.code, code, "{transport}, {last}: {}", outcome.error);
            assert_eq!((outcome.stdout.as_slice(), outcome.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
            assert_eq!(outcome.refused, u64::from(*transport == "fallback"), "{transport}");
        }
    }
    // A client may want less than there is.
    for (wanted, stdout, stderr) in [
        (Wanted { stderr: false, ..Wanted::OUTPUT }, "out\n", ""),
        (Wanted { stdout: false, ..Wanted::OUTPUT }, "", "err\n"),
        (Wanted { stdin: true, ..Wanted::NOTHING }, "", ""),
    ] {
        let url = cri.exec_url(&id, &["/bin/sh", "-c", "echo out; echo err >&2; exit 4"], wanted).await.unwrap();
        let outcome = Client::new("spdy", wanted).run(&url, b"").await;
        assert_eq!((outcome.code, outcome.text().as_str()), (4, stdout), "{wanted:?}");
        assert_eq!(outcome.stderr, stderr.as_bytes(), "{wanted:?}");
    }
}

/// Before v4 there was no exit code, only words.
async fn older_protocols_are_spoken(node: &mut Node) {
    let (cri, id) = running(node).await;
    let [v1, v2, v3, v4, v5] = ["", "v2.", "v3.", "v4.", "v5."].map(|version| format!("{version}channel.k8s.io"));
    let mut offers = vec![("spdy", &v1), ("spdy", &v2), ("spdy", &v3), ("spdy", &v4), ("websocket", &v4)];
    if !peer::chosen() {
        offers.extend([("spdy", &v5), ("websocket", &v5)]);
    }
    for (transport, protocol) in offers {
        for code in [0, 3] {
            let script = format!("echo out; exit {code}");
            let url = cri.exec_url(&id, &["/bin/sh", "-c", &script], Wanted::OUTPUT).await.unwrap();
            let outcome = Client::new(transport, Wanted::OUTPUT).protocol(protocol).run(&url, b"").await;
            if protocol == &v1 && code != 0 {
                // This client waits for either the output or the words.
                continue;
            }
            assert_eq!(outcome.text(), "out\n", "{transport}, {protocol}: {}", outcome.error);
            let known = protocol == &v4 || protocol == &v5 || code == 0;
            assert_eq!(outcome.code, if known { code } else { -1 }, "{transport}, {protocol}: {}", outcome.error);
            assert_eq!(outcome.error.is_empty(), code == 0, "{transport}, {protocol}: {}", outcome.error);
        }
    }
}

async fn python_speaks_two_versions(node: &mut Node) {
    let (cri, id) = running(node).await;
    let command = ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"];
    // By itself it offers the newest, and takes the one before.
    for arguments in [&["session"][..], &["session", "--protocol", "v4.channel.k8s.io"]] {
        let url = cri.exec_url(&id, &command, Wanted::OUTPUT).await.unwrap();
        let answer = python(&[arguments, &[url.as_str()]].concat(), b"").await.unwrap();
        assert_eq!((&answer["code"], &answer["stdout"]["text"]), (&7.into(), &"out\n".into()), "{answer}");
        assert_eq!(answer["stderr"]["text"], "err\n", "{answer}");
        let expected = if arguments.len() == 1 && !peer::chosen() { "v5" } else { "v4" };
        assert_eq!(answer["protocol"], format!("{expected}.channel.k8s.io"));
    }
    // v4 cannot half-close, so the command has to know when it has enough.
    let data = vec![0xa5; 300_000];
    let command = ["/bin/sh", "-c", "head -c 300000 | sha256sum; stty size 2>/dev/null; exit 0"];
    let url = cri.exec_url(&id, &command, Wanted::ALL).await.unwrap();
    let arguments = ["session", "--protocol", "v4.channel.k8s.io", "--stdin", &url];
    let answer = python(&arguments, &data).await.unwrap();
    let expected = tripod_tests::digest(&data)["sha256:".len()..].to_owned();
    assert_eq!((&answer["code"], &answer["stdout"]["text"]), (&0.into(), &format!("{expected}  -\n").into()));
    let script = "until [ \"$(stty size 2>/dev/null)\" = '40 120' ]; do usleep 10000; done; echo resized";
    let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
    let answer = python(&["session", "--size", "120x40", &url], b"").await.unwrap();
    assert_eq!((&answer["code"], &answer["stdout"]["text"]), (&0.into(), &"resized\r\n".into()), "{answer}");
    if !peer::chosen() {
        let url = cri.exec_url(&id, &["/bin/sha256sum"], Wanted::ALL).await.unwrap();
        let answer = python(&["session", "--stdin", &url], &data).await.unwrap();
        assert_eq!(answer["stdout"]["text"], format!("{expected}  -\n"), "v5 half-closes: {answer}");
    }
}

async fn crictl_speaks_both_transports(node: &mut Node) {
    let (_, id) = running(node).await;
    for transport in if peer::chosen() { &["spdy"][..] } else { &["spdy", "websocket"] } {
        let script = "cat; echo err >&2; exit 9";
        let arguments = ["exec", "--transport", transport, "-i", &id, "/bin/sh", "-c", script];
        let (code, stdout, stderr) = crictl_run(&node.socket(), &arguments, b"through\n").await;
        // It ends with 1 whatever the command's code is, and tells that in words.
        assert_eq!((code, stdout.as_str()), (1, "through\n"), "{transport}: {stderr}");
        assert!(stderr.contains("err\n") && stderr.contains("exit code 9"), "{transport}: {stderr}");
    }
}

/// crictl wants a terminal of its own for that.
async fn crictl_has_a_terminal(node: &mut Node) {
    let (_, id) = running(node).await;
    let program = crictl(&node.socket());
    let command: Vec<String> = std::iter::once(program.as_std().get_program())
        .chain(program.as_std().get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    for transport in if peer::chosen() { &["spdy"][..] } else { &["spdy", "websocket"] } {
        let line = format!("stty cols 91 rows 27; {} exec -r {transport} -it {id} /bin/sh", command.join(" "));
        let mut script = tokio::process::Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = script.kill_on_drop(true).spawn().expect("script (Debian: bsdutils)");
        let mut stdin = process.stdin.take().unwrap();
        let typed =
            "until [ \"$(stty size)\" = '27 91' ]; do usleep 10000; done; test -t 1 && echo is-$((40+2))\nexit\n";
        stdin.write_all(typed.as_bytes()).await.unwrap();
        let done = within("crictl", Duration::from_secs(60), process.wait_with_output()).await.unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && text.contains("is-42\r\n"), "{transport}: {} {text:?}", done.status);
        drop(stdin);
    }
}

async fn input_ends_where_the_client_ends_it(node: &mut Node) {
    let (cri, id) = running(node).await;
    let (file, digest) = random(node, 100 * MEGABYTE);
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/sha256sum"], Wanted::ALL).await.unwrap();
        let outcome = Client::new(transport, Wanted::ALL).input(&file).run(&url, b"").await;
        assert_eq!((outcome.code, outcome.text()), (0, format!("{digest}  -\n")), "{transport}: {}", outcome.error);
        // The output goes on after the half-close, and nothing at all is an input, too.
        let script = "cat; sleep 0.2; echo more; sleep 0.2; echo still";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::ALL).await.unwrap();
        let outcome = Client::new(transport, Wanted::ALL).run(&url, b"").await;
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "more\nstill\n"), "{transport}: {}", outcome.error);
        if peer::chosen() {
            continue; // It may keep the client of the next command for ever.
        }
        // A command that does not want its input does not keep the client.
        let url = cri.exec_url(&id, &["/bin/true"], Wanted::ALL).await.unwrap();
        let outcome = Client::new(transport, Wanted::ALL).input(&file).run(&url, b"").await;
        assert_eq!(outcome.code, 0, "{transport}: {}", outcome.error);
    }
}

async fn bytes_are_not_touched(node: &mut Node) {
    let (cri, id) = running(node).await;
    let (file, digest) = random(node, 20 * MEGABYTE);
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/cat"], Wanted::ALL).await.unwrap();
        let outcome = Client::new(transport, Wanted::ALL).counting().input(&file).run(&url, b"").await;
        let got = (outcome.code, outcome.bytes, outcome.sha256);
        assert_eq!(got, (0, 20 * MEGABYTE, digest.clone()), "{transport}: {}", outcome.error);
    }
}

async fn very_much_output_comes_whole(node: &mut Node) {
    let (cri, id) = running(node).await;
    let command = ["/bin/sh", "-c", "head -c 1000000000 /dev/zero; echo done >&2; exit 5"];
    for transport in transports().iter().take(2) {
        let url = cri.exec_url(&id, &command, Wanted::OUTPUT).await.unwrap();
        let begin = Instant::now();
        let outcome = Client::new(transport, Wanted::OUTPUT).counting().run(&url, b"").await;
        println!("{transport}: {:?}", begin.elapsed());
        assert_eq!((outcome.code, outcome.bytes), (5, 1000 * MEGABYTE), "{transport}: {}", outcome.error);
    }
}

async fn output_comes_when_it_is_written(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        let script = "for i in 1 2 3; do echo $i; read line; done; echo end";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        for line in ["1\n", "1\n2\n", "1\n2\n3\n"] {
            // Each line is seen before the command is let go on.
            assert_eq!(session.read_until(line).await, line, "{transport}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            session.write("\n").await;
        }
        assert_eq!(session.end().await.text(), "1\n2\n3\nend\n", "{transport}");
    }
}

/// 28.
async fn a_command_has_what_its_container_has(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = shell("main", "sleep 1000");
    config.envs = vec![KeyValue { key: "WORD".into(), value: "from the request".into() }];
    config.working_dir = "/tmp".into();
    let security = security_of(&mut config);
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.no_new_privs = true;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &config).await.unwrap();
    // A peer gives a command other capabilities, groups and cgroups.
    let compared = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:|Groups'";
    let compared = format!(
        "{compared} /proc/self/status >/tmp/own; {compared} /proc/1/status | cmp - /tmp/own; rm /tmp/own; \
         cmp /proc/self/cgroup /proc/1/cgroup; \
         for n in mnt pid net ipc uts cgroup; do \
         [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done"
    );
    let compared = if peer::chosen() { "true" } else { &compared };
    let script = format!("echo $WORD; echo $FROM_IMAGE; pwd; id -u; {compared}; exec ls /proc/self/fd");
    for transport in transports() {
        for wanted in [Wanted::ALL, Wanted::TERMINAL] {
            let url = cri.exec_url(&id, &["/bin/sh", "-c", &script], wanted).await.unwrap();
            let outcome = Client::new(transport, wanted).run(&url, b"").await;
            let text = outcome.text().replace("\r\n", "\n").replace("    ", "\n").replace('\t', "\n");
            let lines: Vec<&str> = text.split_whitespace().collect();
            // 3 is the folder itself.
            let expected = "from the request yes /tmp 1000 0 1 2 3";
            assert_eq!(lines.join(" "), expected, "{transport}: {} {:?}", outcome.error, outcome.stderr);
        }
    }
}

async fn a_program_that_is_not_there_is_told_to_the_client(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        for wanted in [Wanted::OUTPUT, Wanted::TERMINAL] {
            let url = cri.exec_url(&id, &["/no/such/program"], wanted).await.unwrap();
            let outcome = Client::new(transport, wanted).run(&url, b"").await;
            assert!(outcome.code != 0 && outcome.error.contains("/no/such/program"), "{transport}: {outcome:?}");
        }
    }
    // Nor is one that cannot be run.
    for program in ["/etc/motd", "/etc"] {
        let url = cri.exec_url(&id, &[program], Wanted::OUTPUT).await.unwrap();
        let outcome = Client::new("spdy", Wanted::OUTPUT).run(&url, b"").await;
        assert!(outcome.code != 0 && outcome.error.contains(program), "{outcome:?}");
    }
    assert_eq!(cri.sh(&id, "echo fine").await, "fine");
}

async fn a_container_that_does_not_run_has_no_url(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let created = cri.create(&pod, &config, &shell("created", "true")).await.unwrap();
    let ended = cri.run(&pod, &config, &shell("ended", "true")).await.unwrap();
    cri.exited(&ended).await;
    for (id, code) in
        [(&created, Code::FailedPrecondition), (&ended, Code::FailedPrecondition), (&"no-such".into(), Code::NotFound)]
    {
        let command = ["/bin/true"];
        let errors = [
            cri.exec_url(id, &command, Wanted::OUTPUT).await.unwrap_err(),
            cri.attach_url(id, Wanted::OUTPUT).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.code() == code || peer::chosen(), "{id}: {error}");
        }
    }
}

async fn a_url_works_once(node: &mut Node) {
    let (cri, id) = running(node).await;
    let mut urls = Vec::new();
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/echo", "once"], Wanted::OUTPUT).await.unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        assert_eq!(Client::new(transport, Wanted::OUTPUT).run(&url, b"").await.text(), "once\n");
        let second = Client::new(transport, Wanted::OUTPUT).run(&url, b"").await;
        assert_eq!((second.code, second.text().as_str()), (-1, ""), "{transport}: {}", second.error);
        urls.push(url);
    }
    // Nor does one that nobody gave out, or one of another kind.
    let url = cri.exec_url(&id, &["/bin/echo", "once"], Wanted::OUTPUT).await.unwrap();
    for wrong in [format!("{url}x"), url.replace("/exec/", "/attach/"), url.replace("/exec/", "/cri/exec/")] {
        let outcome = Client::new("spdy", Wanted::OUTPUT).run(&wrong, b"").await;
        assert_eq!((outcome.code, outcome.text().as_str()), (-1, ""), "{wrong}: {}", outcome.error);
    }
    let tokens: Vec<&str> = urls.iter().map(|url| url.rsplit('/').next().unwrap()).collect();
    assert!(tokens.iter().all(|token| token.len() >= 8) && tokens[0] != tokens[1], "{tokens:?}");
}

async fn what_cannot_be_is_refused(node: &mut Node) {
    let (cri, id) = running(node).await;
    let both = Wanted { stderr: true, ..Wanted::TERMINAL };
    for wanted in [Wanted::NOTHING, Wanted { tty: true, ..Wanted::NOTHING }, both] {
        let error = cri.exec_url(&id, &["/bin/true"], wanted).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{wanted:?}: {error}");
        let error = cri.attach_url(&id, wanted).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument || peer::chosen(), "{wanted:?}: {error}");
    }
    if !peer::chosen() {
        assert_eq!(cri.exec_url(&id, &[], Wanted::OUTPUT).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(cri.exec_url("", &["/bin/true"], Wanted::OUTPUT).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(cri.attach_url("", Wanted::OUTPUT).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(cri.forward_url("", &[80]).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
