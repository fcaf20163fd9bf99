use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> IpNet {
    text.parse().expect("a range")
}

#[test]
fn addresses_come_in_order_and_rest_before_they_are_used_again() {
    let (range, mut cursors) = (range("10.1.0.0/29"), Cursors::new());
    let mut take = |used: &[&str]| {
        let used: Vec<IpAddr> = used.iter().map(|text| text.parse().expect("an address")).collect();
        next(range, &mut cursors, |address| used.contains(&address)).map(|net| net.to_string())
    };
    assert_eq!(take(&[]).as_deref(), Ok("10.1.0.2/29"));
    assert_eq!(take(&[]).as_deref(), Ok("10.1.0.3/29"), "a free one is not used again at once");
    assert_eq!(take(&["10.1.0.4", "10.1.0.5"]).as_deref(), Ok("10.1.0.6/29"));
    assert_eq!(take(&["10.1.0.2"]).as_deref(), Ok("10.1.0.3/29"), "it goes round, past the broadcast address");
    let all = ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"];
    assert_eq!(take(&all), Err(Exhausted(range)));
}

#[test]
fn huge_ranges_work() {
    let mut cursors = Cursors::new();
    let range = range("fd00::/64");
    assert_eq!(gateway(range).to_string(), "fd00::1");
    assert_eq!(next(range, &mut cursors, |_| false).expect("an address").to_string(), "fd00::2/64");
    assert_eq!(next(range, &mut cursors, |_| false).expect("an address").to_string(), "fd00::3/64");
}

proptest! {
    #[test]
    fn every_address_is_given_once_and_only_usable_ones(prefix in 24u8..=30, net: u32, steps in 1usize..300) {
        let range = IpNet::new(IpAddr::V4(net.into()), prefix).expect("a range").trunc();
        let mut cursors = Cursors::new();
        let mut used = BTreeSet::new();
        for _ in 0..steps {
            let room = (1usize << (32 - prefix)) - 3;
            match next(range, &mut cursors, |address| used.contains(&address)) {
                Ok(lease) => {
                    prop_assert!(range.contains(&lease.addr()));
                    prop_assert_ne!(lease.addr(), range.network());
                    prop_assert_ne!(lease.addr(), gateway(range));
                    prop_assert_ne!(lease.addr(), range.broadcast());
                    prop_assert!(used.insert(lease.addr()), "{} twice", lease);
                }
                Err(_) => prop_assert_eq!(used.len(), room),
            }
        }
    }

    #[test]
    fn a_cursor_from_elsewhere_does_no_harm(cursor: u32, prefix in 24u8..=30) {
        let range = range("10.9.8.0/24");
        let range = IpNet::new(range.addr(), prefix).expect("a range");
        let mut cursors = Cursors::from([(range, IpAddr::V4(cursor.into()))]);
        let lease = next(range, &mut cursors, |_| false).expect("an address");
        prop_assert!(range.contains(&lease.addr()) && lease.addr() != gateway(range));
    }
}
