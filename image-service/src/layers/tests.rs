use super::*;

/// `cargo test -p tripod-image-service -- --ignored --nocapture what_a_start_costs`
#[test]
#[ignore = "measures, and proves nothing"]
fn what_a_start_costs() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    layout.create().unwrap();
    let trash = Trash::new(layout.trash());
    for number in 0..1000_u32 {
        let diff_id = Digest::of(&number.to_le_bytes());
        let staging = Staging::new(&layout, &trash).unwrap();
        let implied = (0..20).map(|folder| format!("usr/share/folder-{folder}")).collect();
        let layer = Layer::new(diff_id, Unpacked { implied, ..Unpacked::default() }, "boot mount 1");
        staging.install(&layout, &layer).unwrap();
    }
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        assert_eq!(load(&layout, &trash, "boot mount 1").unwrap().len(), 1000);
        println!("1,000 layers at the start: {:?}", begin.elapsed());
    }
}

#[test]
fn what_is_trusted() {
    for (written, now, expected) in [
        (None, "a mount 1", Trust::Whole),
        (Some("a mount 1"), "a mount 1", Trust::Whole),
        (Some("a mount 1"), "a mount 2", Trust::Doubtful),
        (Some("a mount 1"), "b mount 1", Trust::Lost),
        (Some("a"), "a", Trust::Doubtful),
        (Some("a"), "a mount 1", Trust::Doubtful),
        (Some("a"), "b", Trust::Lost),
        (Some("another"), "a mount 1", Trust::Lost),
        // The disk has failed in that boot.
        (Some("a mount 1 failed"), "a mount 1", Trust::Doubtful),
        (Some("a failed"), "a", Trust::Doubtful),
        (Some("a mount 1 failed"), "b mount 1", Trust::Lost),
    ] {
        assert_eq!(trust(written, now), expected, "{written:?} {now}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(life(folder.path()).unwrap(), life(Path::new(folder.path())).unwrap());
}
