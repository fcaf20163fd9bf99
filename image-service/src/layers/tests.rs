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
        let layer = Layer::new(diff_id, Unpacked { implied, ..Unpacked::default() }, "boot");
        staging.install(&layout, &layer).unwrap();
    }
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        assert_eq!(load(&layout, &trash, "boot").unwrap().len(), 1000);
        println!("1,000 layers at the start: {:?}", begin.elapsed());
    }
}
