use super::*;

#[test]
fn users_are_numbers_or_names_without_groups() {
    assert_eq!(ImageUser::parse(""), None);
    assert_eq!(ImageUser::parse("1002"), Some(ImageUser::Uid(1002)));
    assert_eq!(ImageUser::parse("1003:1004"), Some(ImageUser::Uid(1003)));
    assert_eq!(ImageUser::parse("www-data:1004"), Some(ImageUser::Name("www-data".into())));
    // What is no number must not be told as one: whoever is told a number believes it.
    for name in ["4294967296", "-1", "+0", " 5"] {
        assert_eq!(ImageUser::parse(name), Some(ImageUser::Name(name.into())));
    }
}

#[test]
fn pinned_names_may_be_short_or_open() {
    let pinned = ["busybox".to_owned(), "registry.k8s.io/*".to_owned()];
    assert!(is_pinned("docker.io/library/busybox:latest", &pinned));
    assert!(is_pinned("registry.k8s.io/pause:3.9", &pinned));
    assert!(!is_pinned("docker.io/library/busybox:1.36", &pinned));
}
