use proptest::prelude::*;

use super::*;

#[test]
fn attributes_are_read_as_they_were_put() {
    let mut put = Attributes::default();
    put.text(3, "eth0").u32(4, 1500).nest(18, |inner| {
        inner.text(1, "veth").bytes(2, &[1, 2, 3]);
    });
    let found: Vec<_> = attributes(&put.0).collect();
    assert_eq!(found[0], (3, b"eth0\0".as_slice()));
    assert_eq!(text(found[0].1), "eth0");
    assert_eq!(u32_at(found[1].1, 0), Some(1500));
    assert_eq!(found[2].0, 18);
    assert_eq!(attribute(found[2].1, 2), Some([1, 2, 3].as_slice()));
    assert_eq!(attribute(found[2].1, 9), None);
}

#[test]
fn the_kernel_answers_every_message_of_a_batch() {
    let mut socket = Socket::route().expect("a netlink socket");
    // Getting a link that does not exist: refused with the step's name.
    let header = [[0u8; 4], i32::MAX.to_ne_bytes(), [0; 4], [0; 4]].concat();
    let error = socket.ask(Message::new("looking for nothing", 18, ACK, &header)).expect_err("no such link");
    assert_eq!(error.errno(), Some(Errno::NODEV));
    assert!(error.to_string().contains("looking for nothing"), "{error}");
}

proptest! {
    #[test]
    fn no_answer_makes_the_parsers_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(answers(&bytes).count() <= bytes.len());
        prop_assert!(attributes(&bytes).count() <= bytes.len());
        for answer in answers(&bytes) {
            let _ = answer.errno();
        }
    }
}
