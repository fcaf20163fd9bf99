//! How things look: tables, sizes, ages.

use comfy_table::{Table, presets};

/// A table without lines, which scripts can split at spaces.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Prints a table without the blanks that fill its last column.
pub(crate) fn print(table: &Table) {
    println!("{}", table.trim_fmt());
}

/// As much of an ID as people need.
pub(crate) fn short(id: &str) -> String {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.chars().take(13).collect()
}

/// Bytes in the unit that leaves the fewest digits.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// How long ago something was, from nanoseconds since 1970.
pub(crate) fn age(nanoseconds: i64) -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    let seconds = ((now - i128::from(nanoseconds)) / 1_000_000_000).max(0);
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A moment as RFC 3339, from nanoseconds since 1970; nothing for 0, which means never.
pub(crate) fn time(nanoseconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    (nanoseconds != 0).then(|| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::{age, bytes, short, time};

    #[test]
    fn sizes_and_ids() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short("01"), "01");
    }

    #[test]
    fn moments() {
        assert_eq!(time(0), None);
        assert_eq!(time(1_500_000_000), Some("1970-01-01T00:00:01.5Z".to_owned()));
        assert!(age(0).ends_with("days ago"));
        assert_eq!(age(i64::MAX), "0 s ago");
    }
}
