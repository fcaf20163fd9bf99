use super::*;

const STAMP: &str = "2026-11-22T14:21:19.123456789Z";

/// Feeds `text` in pieces of `size` and gives the lines' tags and texts.
fn split(text: &[u8], size: usize) -> Vec<(u8, Vec<u8>)> {
    let mut splitter = Splitter::new(Stream::Stdout);
    let mut lines = Vec::new();
    for piece in text.chunks(size) {
        splitter.push(STAMP, piece, &mut lines);
    }
    splitter.finish(STAMP, &mut lines);
    let lines = lines.strip_suffix(b"\n").unwrap_or(&lines);
    if lines.is_empty() {
        return Vec::new();
    }
    lines
        .split(|b| *b == b'\n')
        .map(|line| {
            assert!(line.starts_with(format!("{STAMP} stdout ").as_bytes()));
            (line[PREFIX - 2], line[PREFIX..].to_vec())
        })
        .collect()
}

#[test]
fn lines_are_the_same_however_they_arrive() {
    let mut text = b"one\n\ntwo\n".to_vec();
    text.extend(vec![b'x'; MAX_TEXT]);
    text.push(b'\n');
    text.extend(vec![b'y'; 2 * MAX_TEXT + 1]);
    text.extend(b"\nend\nno end");
    let expected: Vec<(u8, Vec<u8>)> = vec![
        (b'F', b"one".to_vec()),
        (b'F', b"".to_vec()),
        (b'F', b"two".to_vec()),
        (b'F', vec![b'x'; MAX_TEXT]),
        (b'P', vec![b'y'; MAX_TEXT]),
        (b'P', vec![b'y'; MAX_TEXT]),
        (b'F', b"y".to_vec()),
        (b'F', b"end".to_vec()),
        (b'P', b"no end".to_vec()),
    ];
    for size in [1, 2, 3, 7, 1000, MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 1 << 20] {
        assert_eq!(split(&text, size), expected, "in pieces of {size}");
    }
    assert!(split(b"", 1).is_empty());
}

#[test]
fn a_full_disk_loses_whole_lines_and_the_log_says_so_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&dir.path().join("a/b/0.log")).unwrap();
    let line = |text: &str| {
        let mut lines = Vec::new();
        Splitter::new(Stream::Stdout).push(STAMP, format!("{text}\n").as_bytes(), &mut lines);
        lines
    };
    log.write(&line("first"));
    let good = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
    log.write(&line("12345678"));
    assert_eq!(log.lost(), 8);
    log.file = good;
    log.write(&line("last"));
    assert_eq!(log.lost(), 8);
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| &line[PREFIX..]).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0], lines[2]), ("first", "last"));
    assert!(lines[1].contains("8 bytes of output are missing"), "{}", lines[1]);
}

#[test]
fn a_line_written_in_part_is_taken_back() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts a small tmpfs and needs root");
    let options = [("size", tripod_sys::mount::Value::String("8k"))];
    let mount = tripod_sys::mount::new_filesystem("tmpfs", &options, Default::default()).unwrap();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::APPEND;
    let file = rustix::fs::openat(&mount, "log", flags, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let mut file = File::from(file);
    let lines = format!("short\n{}\n", "x".repeat(20_000));
    assert_eq!(write_whole_lines(&mut file, lines.as_bytes()), 6);
    assert_eq!(file.metadata().unwrap().len(), 6);
    assert_eq!(write_whole_lines(&mut file, b"more\n"), 5, "the room is free again");
}
