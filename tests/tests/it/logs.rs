//! Logs (contract: line 27).

use std::{fs, time::Duration};

use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::Code;
use tripod_cri_api::v1::ReopenContainerLogRequest;
use tripod_tests::{Cri, Node, crictl, crictl_run, eventually, host_pod, log_text, shell, tests, within};

tests![
    lines_have_time_stream_and_tag,
    long_lines_come_in_parts,
    the_log_is_whole_before_the_end_is_visible,
    every_length_of_a_line_is_kept,
    a_line_is_whole_however_it_comes,
    a_terminal_has_a_log,
    reopening_loses_no_line,
    reopening_at_full_speed_loses_no_line,
    a_log_that_is_removed_can_be_made_again,
    a_full_disk_does_not_block_the_container,
    crictl_follows_a_log_through_its_rotation,
];

const LIMIT: Duration = Duration::from_secs(40);

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn±HH:MM` or `…Z`.
fn is_time(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let zone = text.get(29..30) == Some("Z") || matches!(text.get(29..30), Some("+" | "-"));
    digits(0..4)
        && digits(5..7)
        && text.get(10..11) == Some("T")
        && text.get(19..20) == Some(".")
        && digits(20..29)
        && zone
}

async fn lines_have_time_stream_and_tag(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "printf 'one\\n\\nthree  spaces \\n'; printf 'no end'; printf 'err\\r\\n' >&2";
    let (status, _) = cri.outcome(&pod, &config, &shell("main", script)).await.unwrap();
    assert_eq!(status.log_path, "/run/logs/logs/main/0.log");
    let log = fs::read_to_string(&status.log_path).unwrap();
    let mut rest = Vec::new();
    let mut before = String::new();
    for line in log.split_terminator('\n') {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(is_time(time), "{line}");
        assert!(before.as_str() <= time, "times go forward");
        time.clone_into(&mut before);
        rest.push(text);
    }
    rest.sort_unstable();
    assert_eq!(rest, ["stderr F err\r", "stdout F ", "stdout F one", "stdout F three  spaces ", "stdout P no end"]);
}

async fn long_lines_come_in_parts(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo z";
    let (status, text) = cri.outcome(&pod, &config, &shell("main", script)).await.unwrap();
    let log = fs::read_to_string(&status.log_path).unwrap();
    assert!(log.lines().all(|line| line.split(' ').nth(3).unwrap().len() <= 16384), "no part is longer than 16 KiB");
    assert!(log.lines().filter(|line| line.contains(" P ")).count() >= 2);
    assert_eq!(text, format!("{}\n{}\nz\n", "x".repeat(40000), "y".repeat(16384)));
}

async fn every_length_of_a_line_is_kept(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let lengths: Vec<usize> = [0, 4096, 8192, 16384, 32768, 49152, 65536]
        .into_iter()
        .flat_map(|length: usize| [length.saturating_sub(1), length, length + 1])
        .collect();
    let list = lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let script = format!(
        "for n in {list}; do head -c $n /dev/zero | tr '\\0' x; echo; done; head -c 20000 /dev/zero | tr '\\0' y"
    );
    let (status, text) = cri.outcome(&pod, &config, &shell("main", &script)).await.unwrap();
    let found: Vec<usize> = text.lines().map(str::len).collect();
    let expected: Vec<usize> = lengths.into_iter().chain([20000]).collect();
    assert_eq!(found, expected);
    assert!(!text.ends_with('\n'), "the last line has no end");
    let log = fs::read_to_string(&status.log_path).unwrap();
    assert!(log.lines().all(|line| line.split(' ').nth(3).unwrap().len() <= 16384), "no part is longer than 16 KiB");
    assert!(log.ends_with('\n'));
}

/// Several writes make one line, and one write many.
async fn a_line_is_whole_however_it_comes(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "printf abc; sleep 0.3; printf 'def\\nghi'; sleep 0.3; echo; printf '1\\n2\\n3\\n'; \
                  printf one >&2; printf two; sleep 0.2; echo >&2; echo";
    let (status, _) = cri.outcome(&pod, &config, &shell("main", script)).await.unwrap();
    let log = fs::read_to_string(&status.log_path).unwrap();
    // There is no order between the two.
    let of = |stream: &str| {
        let lines = log.split_inclusive('\n').filter(|line| line.split(' ').nth(1) == Some(stream));
        log_text(&lines.collect::<String>())
    };
    assert_eq!((of("stdout").as_str(), of("stderr").as_str()), ("abcdef\nghi\n1\n2\n3\ntwo\n", "one\n"));
}

async fn a_terminal_has_a_log(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut container = shell("main", "test -t 1 && echo terminal; echo err >&2; seq 2000; exit 3");
    container.tty = true;
    let (status, text) = cri.outcome(&pod, &config, &container).await.unwrap();
    assert_eq!(status.exit_code, 3);
    let log = fs::read_to_string(&status.log_path).unwrap();
    assert!(log.lines().all(|line| line.contains(" stdout F ")), "a terminal has one stream");
    let numbers: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text.replace('\r', ""), format!("terminal\nerr\n{numbers}"));
}

async fn the_log_is_whole_before_the_end_is_visible(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("logs");
    let pod = cri.run_pod(&config).await.unwrap();
    let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    for round in 0..10 {
        let (_, text) = cri.outcome(&pod, &config, &shell(&format!("round-{round}"), "seq 2000")).await.unwrap();
        assert_eq!(text, expected, "round {round}");
    }
}

async fn reopen(cri: &Cri, id: &str) -> Result<(), tonic::Status> {
    cri.runtime().reopen_container_log(ReopenContainerLogRequest { container_id: id.to_owned() }).await.map(drop)
}

async fn reopening_loses_no_line(node: &mut Node) {
    let cri = node.ready().await;
    let (_, id) = cri
        .run_in_pod(
            &host_pod("logs"),
            &shell("main", "for i in $(seq 0 59); do seq $((i*50+1)) $((i*50+50)); usleep 2000; done; sleep 1000"),
        )
        .await
        .unwrap();
    let path = cri.status(&id).await.unwrap().log_path;
    let mut whole = String::new();
    for round in 0..5 {
        let aside = format!("{path}.{round}");
        fs::rename(&path, &aside).unwrap();
        reopen(&cri, &id).await.unwrap();
        whole += &fs::read_to_string(&aside).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eventually("the last line", Duration::from_secs(20), async || {
        (whole.clone() + &fs::read_to_string(&path).unwrap()).contains(" 3000\n").then_some(())
    })
    .await;
    whole += &fs::read_to_string(&path).unwrap();
    let expected: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    assert!(log_text(&whole) == expected, "lines are missing or out of order");
    // A container that has ended gets no new log.
    cri.stop(&id, 0).await.unwrap();
    fs::rename(&path, format!("{path}.last")).unwrap();
    assert_eq!(reopen(&cri, &id).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(!fs::exists(&path).unwrap());
}

async fn reopening_at_full_speed_loses_no_line(node: &mut Node) {
    const LINES: u64 = 1_000_000;
    let cri = node.ready().await;
    let script = format!("seq {LINES}; sleep 1000");
    let (_, id) = cri.run_in_pod(&host_pod("logs"), &shell("main", &script)).await.unwrap();
    let path = cri.status(&id).await.unwrap().log_path;
    let mut rotated = Vec::new();
    let last = format!(" {LINES}\n");
    eventually("the last line", Duration::from_secs(120), async || {
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > 0) {
            let aside = format!("{path}.{}", rotated.len());
            fs::rename(&path, &aside).unwrap();
            reopen(&cri, &id).await.unwrap();
            rotated.push(aside);
        }
        let end = |path: &String| fs::read(path).is_ok_and(|text| text.ends_with(last.as_bytes()));
        rotated.iter().rev().take(2).any(end).then_some(())
    })
    .await;
    assert!(rotated.len() > 1, "{} rotations", rotated.len());
    let whole: String = rotated.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let numbers = log_text(&whole);
    assert!(
        numbers.lines().map(|line| line.parse::<u64>().unwrap()).eq(1..=LINES),
        "lines are missing, or there twice"
    );
}

async fn a_log_that_is_removed_can_be_made_again(node: &mut Node) {
    let cri = node.ready().await;
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done";
    let (_, id) = cri.run_in_pod(&host_pod("logs"), &shell("main", script)).await.unwrap();
    let path = cri.status(&id).await.unwrap().log_path;
    let grown = async || fs::metadata(&path).is_ok_and(|meta| meta.len() > 1000).then_some(());
    eventually("a log", LIMIT, grown).await;
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    reopen(&cri, &id).await.unwrap();
    eventually("the log again", LIMIT, grown).await;
    // Its folder, too.
    fs::remove_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    let error = reopen(&cri, &id).await.unwrap_err();
    assert!(error.message().contains(&path), "{error}");
    fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    reopen(&cri, &id).await.unwrap();
    eventually("the log a third time", LIMIT, grown).await;
    let numbers: Vec<u64> =
        log_text(&fs::read_to_string(&path).unwrap()).lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

/// What the log says of what is not in it.
fn told_missing(log: &str) -> u64 {
    let told = log.lines().filter_map(|line| line.split_once("tripod: ")?.1.split_once(" bytes of output are missing"));
    told.map(|(count, _)| count.parse::<u64>().unwrap()).sum()
}

async fn a_full_disk_does_not_block_the_container(node: &mut Node) {
    let cri = node.ready().await;
    let disk = node.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 160 << 10]).unwrap();
    let mut config = host_pod("logs");
    config.log_directory = disk.to_string_lossy().into_owned();
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "seq 100000; touch /tmp/full; while [ ! -e /tmp/go ]; do usleep 10000; done; echo after; exit 5";
    let id = cri.run(&pod, &config, &shell("main", script)).await.unwrap();
    eventually("the container gets through", Duration::from_secs(60), async || {
        cri.exec(&id, &["ls", "/tmp/full"], 20).await.is_ok_and(|answer| answer.exit_code == 0).then_some(())
    })
    .await;
    // There is room again: the log goes on, and says what it lacks, to the byte.
    fs::remove_file(&filler).unwrap();
    // The container's end may be quicker than that of the command.
    cri.exec(&id, &["touch", "/tmp/go"], 20).await.unwrap();
    let status = cri.exited(&id).await;
    assert_eq!(status.exit_code, 5);
    let log = fs::read_to_string(&status.log_path).unwrap();
    let text = log_text(&log);
    assert!(text.ends_with("\nafter\n"), "{}", &text[text.len() - 200..]);
    let kept: u64 = text.lines().filter(|line| line.parse::<u64>().is_ok()).map(|line| line.len() as u64).sum();
    let written: u64 = (1..=100_000u64).map(|number| number.to_string().len() as u64).sum();
    assert_eq!((told_missing(&log) > 0, told_missing(&log) + kept), (true, written));
    cri.remove_pod(&pod).await.unwrap();
    assert!(std::process::Command::new("umount").arg(&disk).status().unwrap().success());
}

/// Whether a process waits for changes of files.
fn watches(pid: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    open.filter_map(|file| fs::read_to_string(file.path()).ok()).any(|text| text.contains("inotify wd:"))
}

async fn crictl_follows_a_log_through_its_rotation(node: &mut Node) {
    let cri = node.ready().await;
    let script = "i=0; until [ -e /tmp/done ]; do i=$((i+1)); echo $i; usleep 20000; done; echo end; exec sleep 1000";
    let (_, id) = cri.run_in_pod(&host_pod("logs"), &shell("main", script)).await.unwrap();
    let path = cri.status(&id).await.unwrap().log_path;
    let socket = node.socket();
    let mut follower = crictl(&socket).args(["logs", "-f", &id]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    let mut show_until = async |text: &str| {
        while seen.last().is_none_or(|last| last != text) {
            seen.push(within("a line", LIMIT, lines.next_line()).await.unwrap().expect("a line"));
        }
    };
    show_until("1").await;
    let pid = follower.id().unwrap();
    eventually("that crictl watches the log", LIMIT, async || watches(pid).then_some(())).await;
    for round in 0..3 {
        // As the kubelet does: away with the old one, and a new one.
        fs::rename(&path, format!("{path}.{round}")).unwrap();
        reopen(&cri, &id).await.unwrap();
        // It opens the log by its name: one that came and went in the meantime is none for it.
        let first = async || log_text(&fs::read_to_string(&path).unwrap()).lines().next().map(str::to_owned);
        show_until(&eventually("a line of the new log", LIMIT, first).await).await;
    }
    cri.sh(&id, "touch /tmp/done").await;
    show_until("end").await;
    cri.stop(&id, 0).await.unwrap();
    assert_eq!(within("the end of crictl", LIMIT, lines.next_line()).await.unwrap(), None);
    assert!(within("the end of crictl", LIMIT, follower.wait()).await.unwrap().success());
    let numbers: Vec<String> = (1..seen.len()).map(|number| number.to_string()).collect();
    assert_eq!(seen[..numbers.len()], numbers);
    let (code, stdout, stderr) = crictl_run(&socket, &["logs", "--tail", "2", &id], b"").await;
    assert_eq!((code, stdout), (0, format!("{}\nend\n", numbers.len())), "{stderr}");
}
