//! Very many sessions, at once and one after the other: nothing is left of them.

use std::time::Duration;

use tripod_tests::{Many, Node, Wanted, eventually, processes, tests, threads, transports};

use crate::stream_faults::running;

tests![five_hundred_sessions_at_once, two_thousand_sessions_one_after_the_other];

const LIMIT: Duration = Duration::from_secs(60);

async fn five_hundred_sessions_at_once(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = node.holdings().await;
    for transport in transports().iter().take(2) {
        let mut many = Many::start(transport);
        // Whoever opens a FIFO for reading waits for somebody who writes.
        let go = format!("/tmp/go-{transport}");
        cri.sh(&id, &format!("mkfifo {go}")).await;
        for number in 0..500 {
            let script = format!("read line <{go}; echo {number}; exit {}", number % 100);
            let url = cri.exec_url(&id, &["/bin/sh", "-c", &script], Wanted { stderr: false, ..Wanted::OUTPUT }).await;
            many.open(&url.unwrap(), false).await;
        }
        // All of them run at the same time.
        eventually("five hundred commands", LIMIT, async || {
            let count = cri.sh(&id, "ls -d /proc/[0-9]* | wc -l").await;
            (count.parse::<usize>().unwrap() > 500).then_some(())
        })
        .await;
        let mut seen = vec![false; 500];
        let ending = async {
            for _ in 0..500 {
                let ended = many.next().await;
                let number: usize =
                    ended["text"].as_str().unwrap().trim().parse().unwrap_or_else(|_| panic!("{ended}"));
                assert_eq!(ended["code"], number % 100, "{transport}: {ended}");
                assert!(!std::mem::replace(&mut seen[number], true), "{transport}: {ended}");
            }
        };
        // More than once: some may not have come to the FIFO yet.
        let release = format!(": >{go}");
        let releasing = async {
            loop {
                let _ = cri.exec(&id, &["timeout", "1", "/bin/sh", "-c", &release], 10).await;
            }
        };
        tokio::select! {
            () = ending => {}
            () = releasing => {}
        }
        many.end().await;
    }
    node.settled(&before).await;
}

async fn two_thousand_sessions_one_after_the_other(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = node.holdings().await;
    let before_threads = threads(node.daemon().pid());
    for transport in transports().iter().take(2) {
        let mut many = Many::start(transport);
        for number in 0..1000 {
            // A tenth of them is left in the midst.
            let leave = number % 10 == 9;
            let script = if leave { "while echo tick; do usleep 1000; done" } else { "echo $$; exit 3" };
            let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted { stderr: false, ..Wanted::OUTPUT }).await;
            many.open(&url.unwrap(), leave).await;
            let ended = many.next().await;
            assert_eq!(ended["code"], if leave { -1 } else { 3 }, "{transport}, {number}: {ended}");
        }
        many.end().await;
    }
    let words = ["/bin/sh", "-c", "while echo tick; do usleep 1000; done"];
    eventually("the end of all commands", LIMIT, async || processes(&words).is_empty().then_some(())).await;
    node.settled(&before).await;
    // The runtime has a few threads for calls that block, and ends them when they were idle for a while.
    let few = async || (threads(node.daemon().pid()) <= before_threads + 4).then_some(());
    eventually("the end of threads", Duration::from_secs(40), few).await;
}
