use std::{
    fs::File,
    io::{Cursor, Read},
};

use super::{BLOCK, Start, skip, start};

/// What is shown of a log with this many lines wanted, counted slowly.
fn expected(log: &str, wanted: usize, goes_on: bool) -> (String, usize) {
    let records: Vec<&str> = log.split_inclusive('\n').collect();
    let (mut lines, mut begin) = (0, records.len());
    for (at, record) in records.iter().enumerate().rev() {
        let full = !record.contains(" P ") || at + 1 == records.len() && !goes_on;
        if full && lines == wanted {
            break;
        }
        lines += usize::from(full);
        begin = at;
    }
    (records[begin..].concat(), lines)
}

fn check(log: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, log).unwrap();
    let file = File::open(&path).unwrap();
    for goes_on in [false, true] {
        for wanted in [0, 1, 2, 3, 10, 1000, 100_000] {
            let Start { offset, lines } = start(&file, wanted, goes_on).unwrap();
            let text = &log[usize::try_from(offset).unwrap()..];
            let (all, count) = expected(log, wanted, goes_on);
            assert!(text == all && lines == count, "{wanted} of {} bytes: {lines}, {count}", log.len());
        }
    }
}

#[test]
fn the_last_lines() {
    check("");
    check("1 stdout F a\n");
    check("1 stdout F a\n2 stdout F b\n3 stdout F c\n");
    check("1 stdout F a\n2 stdout P b\n3 stdout P c\n4 stdout F d\n5 stderr F e\n");
    check("1 stdout P a\n2 stdout P b\n");
    check("1 stdout F a\n2 stdout P b\n3 stdout P c\n");
    check("1 stdout F a\nforeign\n\n2 stdout F cut");
    let many: String = (0..30_000).map(|line| format!("2026-01-01T00:00:00Z stdout F {line}\n")).collect();
    check(&many);
    // Records longer than a block, and heads across the borders of blocks.
    for length in [BLOCK - 20, BLOCK, BLOCK + 7, 3 * BLOCK] {
        let long = "x".repeat(length);
        check(&format!("1 stdout F a\n2 stdout P {long}\n3 stdout F {long}\n4 stdout F b\n"));
    }
    for length in BLOCK - 60..BLOCK {
        check(&format!("1 stdout F a\n2 stdout P b\n3 stdout F {}\n", "y".repeat(length)));
    }
}

#[test]
fn the_last_lines_of_what_is_read_from_its_beginning() {
    let log: String = (0..30_000).map(|line| format!("1 stdout P {line}\n1 stdout F .\n")).collect();
    for wanted in [0, 1, 7, 29_999, 30_000, 50_000] {
        let open = || Ok(Some(Box::new(Cursor::new(log.clone())) as Box<dyn Read>));
        let (rest, lines) = skip(open, wanted).unwrap();
        let mut text = String::new();
        rest.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.lines().count(), lines), (2 * wanted.min(30_000), wanted.min(30_000)));
        assert!(log.ends_with(&text));
    }
}
