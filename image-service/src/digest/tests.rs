use super::*;

#[test]
fn hashes_and_checks() {
    let digest = Digest::of(b"abc");
    assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(digest.matches(b"abc"));
    assert!(!digest.matches(b"abd"));
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"a");
    hasher.update(b"bc");
    let digest = hasher.finish();
    assert!(digest.hex().starts_with("ddaf35a193617aba") && digest.matches(b"abc"));
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
}

#[test]
fn refuses_what_is_no_digest() {
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for text in [
        "",
        "sha256",
        "sha256:",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha256:{}", &hex[1..]),
        &format!("sha512:{hex}"),
        &format!("sha256:../{}", &hex[3..]),
    ] {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
}
