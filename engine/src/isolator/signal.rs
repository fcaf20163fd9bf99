//! Names of signals, as images (`STOPSIGNAL`) and people write them.

/// SIGTERM: what stops a container that says nothing else.
pub const TERM: i32 = 15;

/// The real-time signals that programs may use, as glibc gives them out (it keeps 32 and 33 for itself).
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// Names as in signal(7) for all architectures that tripod runs on (x86-64, arm64); index 0 is signal 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Second names of some.
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// The number of a signal written as `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
pub fn parse(text: &str) -> Option<i32> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RT_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(RT_MIN, rest, '+', 1);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(RT_MAX, rest, '-', -1);
    }
    let plain = (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number);
    plain.or_else(|| ALIASES.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number))
}

fn real_time(base: i32, rest: &str, sign: char, direction: i32) -> Option<i32> {
    if rest.is_empty() {
        return Some(base);
    }
    let digits = rest.strip_prefix(sign)?;
    let offset = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i32>().ok())??;
    let number = base.checked_add(direction.checked_mul(offset)?)?;
    (RT_MIN..=RT_MAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn all_spellings() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("15", 15),
            (" SIGQUIT ", 3),
            ("SIGKILL", 9),
            ("SIGSYS", 31),
            ("SIGPOLL", 29),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
    }

    #[test]
    fn no_others() {
        for text in ["", "0", "65", "-1", "SIG", "SIGFOO", "RTMIN-1", "RTMIN+31", "RTMIN+", "RTMAX+1", "RTMIN++1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
