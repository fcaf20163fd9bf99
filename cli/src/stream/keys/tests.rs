use super::{DetachKeys, Watcher};

fn keys(text: &str) -> DetachKeys {
    text.parse().unwrap()
}

/// Feeds the input whole, and byte by byte: both must say the same.
fn pass(text: &str, input: &str) -> (String, bool) {
    let (whole, found) = Watcher::new(keys(text)).pass(input.as_bytes());
    let mut watcher = Watcher::new(keys(text));
    let mut single = Vec::new();
    for byte in input.bytes() {
        let (through, done) = watcher.pass(&[byte]);
        single.extend(through);
        if done {
            break;
        }
    }
    assert_eq!(single, whole);
    (String::from_utf8(whole).unwrap(), found)
}

#[test]
fn keys_are_characters_and_control_characters() {
    assert_eq!(keys("ctrl-p,ctrl-q"), DetachKeys(vec![16, 17]));
    assert_eq!(keys("ctrl-A,b,ctrl-\\,ctrl-@"), DetachKeys(vec![1, b'b', 28, 0]));
    assert_eq!(keys(""), DetachKeys::default());
    for wrong in ["ctrl-", "ctrl-1", "ab", "ä", "a,,b", "ctrl-ab"] {
        assert!(wrong.parse::<DetachKeys>().unwrap_err().contains("is no key"), "{wrong}");
    }
}

#[test]
fn a_sequence_ends_the_input_and_a_beginning_of_one_goes_on() {
    assert_eq!(pass("x,y", "hello xy more"), ("hello ".into(), true));
    assert_eq!(pass("x,y", "xxy"), ("x".into(), true));
    assert_eq!(pass("x,y", "xaxb"), ("xaxb".into(), false));
    // The beginning is held until it is known.
    assert_eq!(pass("x,y", "ax"), ("a".into(), false));
    // A sequence that begins within itself.
    assert_eq!(pass("a,a,b", "aaab"), ("a".into(), true));
    assert_eq!(pass("a,b,a,c", "ababac"), ("ab".into(), true));
    assert_eq!(pass("a,b,a,c", "abab"), ("ab".into(), false));
    assert_eq!(pass("q", "12q3"), ("12".into(), true));
    assert_eq!(pass("", "anything \u{10}\u{11}"), ("anything \u{10}\u{11}".into(), false));
}
