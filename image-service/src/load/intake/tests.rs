use super::*;

#[test]
fn layers_are_known_by_how_they_begin() {
    let mut header = tar::Header::new_gnu();
    header.set_path("etc/").unwrap();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_cksum();
    assert!(is_layer(header.as_bytes()));
    assert!(is_layer(&[0; 512]), "an empty archive");
    assert!(is_layer(&[0x1f, 0x8b, 8, 0]) && is_layer(&[0x28, 0xb5, 0x2f, 0xfd, 0]));
    let mut wrong = *header.as_bytes();
    wrong[0] ^= 1;
    assert!(!is_layer(&wrong));
    assert!(!is_layer(b"1.0") && !is_layer(&[0; 100]) && !is_layer(&[0xff; 512]));
}

#[test]
fn blobs_are_named_by_their_digests() {
    let hex = "a".repeat(64);
    let named = |path: &str| named(path.as_bytes()).map(|digest| digest.to_string());
    assert_eq!(named(&format!("blobs/sha256/{hex}")), Some(format!("sha256:{hex}")));
    assert_eq!(named(&format!("blobs/sha256/{hex}/x")), None);
    assert_eq!(named(&format!("blobs/sha1/{hex}")), None);
    assert_eq!(named(&format!("x/blobs/sha256/{hex}")), None);
}

#[test]
fn links_are_followed_a_few_times() {
    let mut contents = Contents::default();
    for (from, to) in [("a", "b"), ("b", "c"), ("x", "y"), ("y", "x")] {
        contents.links.insert(from.into(), to.into());
    }
    assert_eq!(contents.resolve(b"a"), b"c");
    assert_eq!(contents.resolve(b"other"), b"other");
    // A circle ends somewhere, where there is no entry.
    contents.resolve(b"x");
}
