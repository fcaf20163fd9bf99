use super::*;

fn log(lines: &[&str]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn lines_are_counted_and_parts_are_joined() {
    let file = log(&[
        "2026-11-22T23:59:59.5Z stdout F 000000000000 yy",
        "2026-11-22T23:59:59.75+00:00 stdout P 000000000001",
        "2026-11-22T23:59:59.75+00:00 stdout F  yy",
        "2026-11-23T00:00:01Z stdout F end of lines 3",
    ]);
    let text = read(file.path(), 16).unwrap();
    assert_eq!((text.lines, text.printed, text.bytes), (2, 3, 16 + 16 + 15));
    assert!((text.last - text.first - 1.5).abs() < 1e-6);
}

#[test]
fn wrong_lines_are_errors() {
    for lines in [
        &["2026-11-22T23:59:59.5Z stdout F 000000000000 y", "2026-11-22T23:59:59.5Z stdout F end of lines 1"][..],
        &["2026-11-22T23:59:59.5Z stdout F 000000000000 yy"],
        &["2026-11-22T23:59:59.5Z"],
    ] {
        assert!(read(log(lines).path(), 16).is_err());
    }
}
