use super::*;

fn left(blob: &str, bytes: u64, form: Form) -> Left {
    Left { blob: Digest::of(blob.as_bytes()), bytes, form }
}

#[test]
fn only_what_is_certain_counts() {
    let all = [left("a", 100, Form::Compressed), left("b", 100, Form::Archive), left("c", 100, Form::Files)];
    assert_eq!(least(&all, false, 0), 100 + 50 + 100);
    assert_eq!(least(&all, true, 0), 50);
    assert_eq!(least(&[], false, 0), 0);
}

#[test]
fn a_blob_that_several_want_counts_once_and_as_far_as_it_is() {
    let same = [left("a", 100, Form::Compressed), left("a", 30, Form::Compressed), left("b", 7, Form::Compressed)];
    assert_eq!(least(&same, false, 0), 37);
}

#[test]
fn files_that_are_here_may_be_those_of_each_layer() {
    let two = [left("a", 100, Form::Compressed), left("b", 10, Form::Compressed)];
    assert_eq!(least(&two, false, 60), 40);
    assert_eq!(least(&two, false, 1000), 0);
}

#[test]
fn sizes_that_nothing_has_are_no_overflow() {
    let two = [left("a", u64::MAX, Form::Files), left("b", u64::MAX, Form::Files)];
    assert_eq!(least(&two, false, 0), u64::MAX);
}

#[test]
fn media_types_say_what_is_compressed() {
    let form = |media_type: Option<&str>| {
        Form::of(&Descriptor {
            media_type: media_type.map(str::to_owned),
            digest: Digest::of(b""),
            size: 1,
            platform: None,
            annotations: None,
        })
    };
    for compressed in [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ] {
        assert_eq!(form(Some(compressed)), Form::Compressed, "{compressed}");
    }
    assert_eq!(form(Some("application/vnd.oci.image.layer.v1.tar")), Form::Archive);
    assert_eq!(form(None), Form::Archive);
}
