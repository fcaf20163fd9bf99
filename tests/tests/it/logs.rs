//! Logs (contract: line 27).

use std::{fs, time::Duration};

use tonic::Code;
use tripod_cri_api::v1::ReopenContainerLogRequest;
use tripod_tests::{Cri, Node, eventually, host_pod, log_text, shell, tests};

tests![
    lines_have_time_stream_and_tag,
    long_lines_come_in_parts,
    the_log_is_whole_before_the_end_is_visible,
    reopening_loses_no_line,
    a_full_disk_does_not_block_the_container,
];

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

async fn a_full_disk_does_not_block_the_container(node: &mut Node) {
    let cri = node.ready().await;
    let disk = node.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    let mut config = host_pod("logs");
    config.log_directory = disk.to_string_lossy().into_owned();
    let pod = cri.run_pod(&config).await.unwrap();
    let id = cri.run(&pod, &config, &shell("main", "seq 100000; exit 5")).await.unwrap();
    assert_eq!(cri.exited(&id).await.exit_code, 5);
    cri.remove_pod(&pod).await.unwrap();
    assert!(std::process::Command::new("umount").arg(&disk).status().unwrap().success());
}
