use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use super::{
    super::{moment::Window, printer::tests::Seen},
    Follower, Sink,
};

struct Log {
    folder: tempfile::TempDir,
    sink: Sink,
    out: Seen,
}

impl Log {
    fn new() -> Self {
        let (sink, out, _) = Seen::pair();
        Self { folder: tempfile::tempdir().unwrap(), sink, out }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn renamed(&self, day: u8) -> PathBuf {
        self.folder.path().join(format!("0.log.202601{day:02}-000000"))
    }

    fn rename(&self, day: u8) -> PathBuf {
        fs::rename(self.path(), self.renamed(day)).unwrap();
        self.renamed(day)
    }

    fn shown(&mut self, follower: &mut Follower) -> String {
        follower.show(&mut self.sink).unwrap();
        self.out.take()
    }

    fn begun(&mut self, last: Option<usize>) -> String {
        let mut follower = Follower::new(self.path());
        follower.begin(last, &mut self.sink).unwrap();
        self.shown(&mut follower)
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn pack(path: &Path) {
    let mut packed = GzEncoder::new(File::create(path.with_added_extension("gz")).unwrap(), Compression::fast());
    packed.write_all(&fs::read(path).unwrap()).unwrap();
    packed.finish().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn a_log_is_followed_from_before_it_is_there() {
    let mut log = Log::new();
    let mut follower = Follower::new(log.path());
    follower.begin(None, &mut log.sink).unwrap();
    assert_eq!(log.shown(&mut follower), "");
    append(&log.path(), "t stdout F a\nt stdout F ha");
    assert_eq!(log.shown(&mut follower), "a\n");
    append(&log.path(), "lf\n");
    assert_eq!(log.shown(&mut follower), "half\n");
    append(&log.path(), "t stdout F cut o");
    assert_eq!(log.shown(&mut follower), "");
    follower.finish(&mut log.sink).unwrap();
    assert_eq!(log.out.take(), "cut o\n");
}

#[test]
fn a_renamed_log_is_followed_without_a_hole() {
    let mut log = Log::new();
    append(&log.path(), "t stdout F a\n");
    let mut follower = Follower::new(log.path());
    assert_eq!(log.shown(&mut follower), "a\n");
    // Renamed, written to, and made anew.
    let old = log.rename(1);
    append(&old, "t stdout F b\n");
    assert_eq!(log.shown(&mut follower), "b\n");
    append(&old, "t stdout F c\n");
    append(&log.path(), "t stdout F d\n");
    assert_eq!(log.shown(&mut follower), "c\nd\n");
    // Twice between two looks, with a line that goes on from file to file.
    append(&log.path(), "t stdout P e");
    append(&log.rename(2), "t stdout P f");
    append(&log.path(), "\nt stdout F g\n");
    fs::write(log.renamed(2), "t stdout F d\nt stdout P e\nt stdout P f\n").unwrap();
    fs::write(log.path(), "t stdout F g\n").unwrap();
    log.rename(3);
    append(&log.path(), "t stdout F h\n");
    assert_eq!(log.shown(&mut follower), "efg\nh\n");
    // Copied and cut.
    fs::write(log.path(), "t stdout F i\n").unwrap();
    fs::write(log.path(), "").unwrap();
    assert_eq!(log.shown(&mut follower), "");
    append(&log.path(), "t stdout F j\n");
    assert_eq!(log.shown(&mut follower), "j\n");
}

#[test]
fn a_log_that_has_no_file_of_its_name_just_now_is_followed() {
    let mut log = Log::new();
    append(&log.path(), "t stdout F a\n");
    log.rename(1);
    append(&log.path(), "t stdout F b\n");
    let renamed = log.rename(2);
    let mut follower = Follower::new(log.path());
    follower.begin(None, &mut log.sink).unwrap();
    assert_eq!(log.shown(&mut follower), "a\nb\n");
    append(&renamed, "t stdout F c\n");
    append(&log.path(), "t stdout F d\n");
    assert_eq!(log.shown(&mut follower), "c\nd\n");
}

#[test]
fn renamed_files_belong_to_the_log() {
    let mut log = Log::new();
    for (day, lines) in [(1, "a\nt stdout F b"), (2, "c\nt stdout F d"), (3, "e\nt stdout P f")] {
        append(&log.path(), &format!("t stdout F {lines}\n"));
        log.rename(day);
    }
    pack(&log.renamed(1));
    pack(&log.renamed(2));
    append(&log.path(), "t stdout F g\nt stdout F h\n");
    assert_eq!(log.begun(None), "a\nb\nc\nd\ne\nfg\nh\n");
    assert_eq!(log.begun(Some(0)), "");
    assert_eq!(log.begun(Some(1)), "h\n");
    assert_eq!(log.begun(Some(3)), "e\nfg\nh\n");
    assert_eq!(log.begun(Some(4)), "d\ne\nfg\nh\n");
    assert_eq!(log.begun(Some(6)), "b\nc\nd\ne\nfg\nh\n");
    assert_eq!(log.begun(Some(100)), "a\nb\nc\nd\ne\nfg\nh\n");
    // A file that was last written too long ago is not even opened.
    fs::write(log.folder.path().join("0.log.20260102-000000.gz"), "this cannot be unpacked").unwrap();
    let old = File::options().write(true).open(log.folder.path().join("0.log.20260102-000000.gz")).unwrap();
    old.set_modified("2026-01-02T00:00:00Z".parse::<jiff::Timestamp>().unwrap().into()).unwrap();
    let window = Window::new(Some("1h".parse().unwrap()), None);
    let mut follower = Follower::with(log.path(), window, false);
    follower.begin(None, &mut log.sink).unwrap();
    assert_eq!(log.shown(&mut follower), "a\nb\ne\nfg\nh\n");
}
