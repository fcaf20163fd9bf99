use std::ffi::CString;

use super::*;

fn look(path: &[u8]) -> Look<'_> {
    Look { path, size: LEAST, mode: 0o755, uid: 1, gid: 2, mtime: (3, 4), attributes: false }
}

#[test]
fn what_programs_ask_for_its_links_is_nobody_elses() {
    for path in
        [&b"usr/lib/x.so"[..], b"opt/app/x", b"usr/var/x", b"etcetera/x", b"usr/share/gz", b"usr/lib/a.gz.d/x", b"x"]
    {
        assert!(look(path).can_be_shared(), "{}", path.escape_ascii());
    }
    for path in [
        &b"etc/passwd"[..],
        b"usr/local/etc/x",
        b"opt/etc",
        b"var/lib/x",
        b"data/x",
        b"run/x",
        b"tmp/x",
        b"usr/dump.sql.gz",
        b"x.xz",
        b"a/b.tar.Z",
    ] {
        assert!(!look(path).can_be_shared(), "{}", path.escape_ascii());
    }
    assert!(!Look { size: LEAST - 1, ..look(b"x") }.can_be_shared());
    assert!(!Look { attributes: true, ..look(b"x") }.can_be_shared());
    for mode in [0o4755, 0o2755] {
        assert!(!Look { mode, ..look(b"x") }.can_be_shared());
    }
}

#[test]
fn names_tell_looks_apart() {
    let one = look(b"usr/x");
    let others = [
        look(b"usr/y"),
        Look { size: one.size + 1, ..one },
        Look { mode: 0o644, ..one },
        Look { uid: 2, ..one },
        Look { gid: 1, ..one },
        Look { mtime: (3, 5), ..one },
        Look { mtime: (4, 4), ..one },
    ];
    let (shelf, name) = one.name();
    assert_eq!((shelf.len(), name.len()), (2, 33));
    assert!(name.starts_with(&format!("{shelf}/")));
    assert!(others.iter().all(|other| other.name() != one.name()));
    assert_eq!(one.name(), look(b"usr/x").name());
}

/// A file with its record's node, in a folder where layers could be.
fn file(folder: &Path, name: &str, content: &[u8]) -> (OwnedFd, CString, Node) {
    std::fs::write(folder.join(name), content).unwrap();
    let mut found = None;
    record::walk(folder, true, |each| {
        if each.path == name.as_bytes() {
            found = Some(each.node()?);
        }
        Ok(())
    })
    .unwrap();
    (std::fs::File::open(folder).unwrap().into(), CString::new(name).unwrap(), found.unwrap())
}

#[test]
fn objects_are_counted_and_swept() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let folder = root.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let objects = Objects::open(&at("objects"), true).unwrap();
    let (one, two) = (at("one"), at("two"));
    let content = vec![7; 20_000];
    let (folder, name, node) = file(&one, "x", &content);
    objects.keep(&folder, &name, &node);
    let Kind::File { size, .. } = node.kind else { panic!("{node:?}") };
    let Node { mode, uid, gid, mtime, .. } = node;
    let look = Look { path: b"x", size, mode, uid, gid, mtime, attributes: false };
    let object = objects.find(&look).unwrap();
    assert!(objects.find(&Look { mode: mode ^ 1, ..look }).is_none());
    assert_eq!(objects.saved().unwrap(), Saved::default());
    linkat(CWD, one.join("x"), CWD, two.join("x"), AtFlags::empty()).unwrap();
    // Counted when somebody says that there is something to count.
    assert_eq!(objects.saved().unwrap(), Saved::default());
    objects.changed();
    assert_eq!(objects.saved().unwrap(), Saved { bytes: 20_480, inodes: 1 });
    assert_eq!(objects.staying(&[&one]).unwrap(), 20_480);
    assert_eq!(objects.staying(&[&one, &two]).unwrap(), 20_480);
    assert_eq!(objects.staying(&[&root.path().join("gone")]).unwrap(), 0);
    // One that two layers have keeps its name, whatever else looks the same.
    let (folder, name, mut other) = file(&at("three"), "x", &content);
    other.mtime = mtime;
    objects.keep(&folder, &name, &other);
    assert_eq!(objects.find(&look).unwrap().inode, object.inode);
    std::fs::remove_file(one.join("x")).unwrap();
    objects.sweep().unwrap();
    assert_eq!((objects.saved().unwrap(), objects.staying(&[&two]).unwrap()), (Saved::default(), 0));
    assert!(objects.find(&look).is_some());
    std::fs::remove_file(two.join("x")).unwrap();
    objects.sweep().unwrap();
    assert!(objects.find(&look).is_none());
    // Whoever is switched off neither finds nor makes any, but sweeps.
    let off = Objects::open(&root.path().join("objects"), false).unwrap();
    off.keep(&folder, &name, &other);
    assert!(off.shared().unwrap().is_empty() && off.find(&look).is_none());
    off.sweep().unwrap();
}
