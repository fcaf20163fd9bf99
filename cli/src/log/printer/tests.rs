use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use super::{super::moment::Window, HELD, Printer, Sink};

/// What was written, to be looked at.
#[derive(Debug, Clone, Default)]
pub(in crate::log) struct Seen(Arc<Mutex<Vec<u8>>>);

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seen {
    /// Two, and a sink into them.
    pub(in crate::log) fn pair() -> (Sink, Self, Self) {
        let (out, err) = (Self::default(), Self::default());
        (Sink::new(out.clone(), Some(Box::new(err.clone()))), out, err)
    }

    /// All since the last time.
    pub(in crate::log) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// Shows a log in pieces of each size; all must show the same.
fn show(make: impl Fn() -> Printer, log: &str) -> (String, String) {
    let mut results = Vec::new();
    for size in [1, 2, 3, 7, 64, 1000, usize::MAX] {
        let (mut sink, out, err) = Seen::pair();
        let mut printer = make();
        log.as_bytes().chunks(size.min(log.len().max(1))).for_each(|chunk| printer.feed(chunk, &mut sink).unwrap());
        printer.end_of_file(&mut sink).unwrap();
        sink.flush().unwrap();
        results.push((out.take(), err.take()));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
    results.remove(0)
}

#[test]
fn lines_go_where_they_came_from_and_parts_are_joined() {
    let log = "1 stdout P one \n2 stderr F oops\n3 stdout P 1\n4 stdout F  line\n5 stdout F \nforeign\n";
    assert_eq!(show(Printer::default, log), ("one 1 line\n\nforeign\n".into(), "oops\n".into()));
    // The time of a line is that of its first part, and stands nowhere else.
    let stamped = show(|| Printer::new(Window::default(), true), log);
    assert_eq!(stamped, ("1 one 1 line\n5 \nforeign\n".into(), "2 oops\n".into()));
}

#[test]
fn a_line_is_shown_or_not_by_its_first_part() {
    let log = "2026-01-01T00:00:01Z stdout P old \n2026-01-01T00:00:03Z stdout F end\n\
        2026-01-01T00:00:03Z stderr F new\n2026-01-01T00:00:04Z stdout P cut\n";
    let window = || Window::new(Some("2026-01-01T00:00:02Z".parse().unwrap()), None);
    assert_eq!(show(|| Printer::new(window(), false), log), ("cut".into(), "new\n".into()));
}

#[test]
fn what_is_cut_off_is_shown_as_far_as_it_goes() {
    let show = |log| show(Printer::default, log).0;
    assert_eq!(show("1 stdout F whole\n2 stdout F cut of"), "whole\ncut of\n");
    assert_eq!(show("1 stdout F whole\n2026-01-01T00:0"), "whole\n");
    assert_eq!(show("1 stdout F whole\n2 stdout"), "whole\n");
    assert_eq!(show("1 stdout F whole\nno log"), "whole\nno log\n");
    assert_eq!(show(""), "");
}

#[test]
fn records_without_end_are_not_kept_in_memory() {
    let text = "x".repeat(10 * HELD);
    for log in [
        format!("1 stdout F {text}\n2 stdout F next\n"),
        format!("1 stdout P {text}\n2 stdout F \n2 stdout F next\n"),
        format!("{text}\n2 stdout F next\n"),
    ] {
        let (mut sink, out, _) = Seen::pair();
        let mut printer = Printer::default();
        for chunk in log.as_bytes().chunks(1 << 12) {
            printer.feed(chunk, &mut sink).unwrap();
            assert!(printer.held.capacity() <= 3 * HELD);
        }
        sink.flush().unwrap();
        assert!(out.take() == format!("{text}\nnext\n"));
    }
    // Cut off, and of a line that is not shown.
    let (mut sink, out, _) = Seen::pair();
    let mut printer = Printer::default();
    printer.feed(format!("1 stdout F {text}").as_bytes(), &mut sink).unwrap();
    printer.end_of_file(&mut sink).unwrap();
    sink.flush().unwrap();
    assert!(out.take() == format!("{text}\n"));
    let mut printer = Printer::new(Window::new(Some("1h".parse().unwrap()), None), true);
    printer.feed(format!("2026-01-01T00:00:01Z stdout F {text}\n").as_bytes(), &mut sink).unwrap();
    printer.feed(format!("{} stdout F now\n", jiff::Timestamp::now()).as_bytes(), &mut sink).unwrap();
    sink.flush().unwrap();
    assert!(out.take().ends_with("Z now\n"));
}
