use super::*;

/// Each test has its own thread, and capabilities are a thread's.
#[test]
fn sets_are_written_as_read() {
    let before = get().unwrap();
    set(before).unwrap();
    assert_eq!(get().unwrap(), before);
    let less = Sets { effective: 0, permitted: before.permitted, inheritable: 0 };
    set(less).unwrap();
    assert_eq!(get().unwrap(), less);
}

#[test]
fn bounding_holds_what_is_permitted_to_root() {
    let mine = get().unwrap();
    assert_eq!(mine.permitted & !bounding(), 0, "permitted goes beyond bounding");
}
