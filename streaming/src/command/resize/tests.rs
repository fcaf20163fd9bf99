use proptest::prelude::*;

use super::{DOCUMENT, Size, Sizes};

fn size(width: u16, height: u16) -> Option<Size> {
    Some(Size { width, height })
}

#[test]
fn documents_come_in_parts_and_together() {
    let mut sizes = Sizes::default();
    assert_eq!(sizes.take(b"{\"Width\":80,\"Hei").unwrap(), None);
    assert_eq!(sizes.take(b"ght\":24}").unwrap(), size(80, 24));
    assert_eq!(sizes.take(b"\n").unwrap(), None);
    assert_eq!(sizes.take(b"{\"Width\":1,\"Height\":2} {\"Width\":3,\"Height\":4}\n{").unwrap(), size(3, 4));
    assert_eq!(sizes.take(b"\"width\":5,\"height\":6,\"more\":[]}").unwrap(), size(5, 6));
    assert_eq!(sizes.take(b"{}").unwrap(), size(0, 0));
}

#[test]
fn junk_is_junk() {
    for junk in ["x", "[[]]", "{\"Width\":-1}", "{\"Width\":65536}", "{\"Width\":\"1\"}", "}", "\0", "\u{fffd}"] {
        assert!(Sizes::default().take(junk.as_bytes()).is_err(), "{junk}");
    }
    let endless = format!("{{\"{}", "x".repeat(DOCUMENT));
    assert!(Sizes::default().take(endless.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(parts: Vec<Vec<u8>>) {
        let mut sizes = Sizes::default();
        for part in parts {
            if sizes.take(&part).is_err() {
                break;
            }
        }
    }

    #[test]
    fn sizes_survive_any_cut(all: Vec<(u16, u16)>, cut in 1_usize..40) {
        let text: String = all.iter().map(|(w, h)| format!("{{\"Width\":{w},\"Height\":{h}}}\n")).collect();
        let mut sizes = Sizes::default();
        let last = text.as_bytes().chunks(cut).filter_map(|part| sizes.take(part).unwrap()).last();
        prop_assert_eq!(last, all.last().and_then(|(w, h)| size(*w, *h)));
    }
}
