use super::*;

const RANGES: Ranges = Ranges { connections: 4, piece_bytes: 1 << 20, memory_bytes: 8 << 20 };

fn pace(bytes: u64, network: u64, sink: u64) -> Pace {
    let mut pace = Pace::default();
    pace.count(usize::try_from(bytes).unwrap(), Duration::from_millis(network), Duration::from_millis(sink));
    pace
}

#[test]
fn more_connections_are_opened_where_one_is_waited_for() {
    let wants = |pace: Pace| pace.wants_pieces(&RANGES, 100 << 20);
    assert!(wants(pace(1 << 20, 500, 100)));
    assert!(!wants(pace(1 << 19, 500, 100)), "too little is known");
    assert!(!wants(pace(1 << 20, 500, 600)), "it is unpacking that takes the time");
    assert!(!wants(pace(1 << 20, 20, 1)), "it is fast enough");
    assert!(!pace(1 << 20, 500, 0).wants_pieces(&RANGES, 2 << 20), "the rest is small");
    assert!(!pace(1 << 20, 500, 0).wants_pieces(&Ranges { connections: 1, ..RANGES }, 100 << 20));
}

#[test]
fn what_gains_nothing_is_not_tried_again() {
    let slow = pace(1 << 20, 900, 100);
    assert!(slow.is_gain(4 << 20, Duration::from_secs(2)));
    assert!(!slow.is_gain(4 << 20, Duration::from_secs(4)));
    assert!(!slow.is_gain(4 << 20, Duration::from_millis(3500)));
    let after = |ends: &[End]| {
        let mut pace = Pace::default();
        for end in ends {
            pace.back(*end);
        }
        pace.count(10 << 20, Duration::from_secs(1), Duration::ZERO);
        pace.wants_pieces(&RANGES, 100 << 20)
    };
    assert!(after(&[End::Failed, End::Failed]) && after(&[End::NoMemory; 5]));
    assert!(!after(&[End::NoRanges]) && !after(&[End::NoGain]) && !after(&[End::Failed; 3]));
}
