use super::*;

/// The way of kernels before 6.8, which this one knows too.
#[test]
fn mounts_in_one_string() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["low", "high", "upper", "work", "spare"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::fs::write(path("low/f"), "low").unwrap();
    std::fs::write(path("high/f"), "high").unwrap();
    let (low, high, upper, work) = (path("low"), path("high"), path("upper"), path("work"));
    let mounted = attached(&[&high, &low], Some((&upper, &work)), &path("spare"), None).unwrap();
    let top = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
    assert_eq!(std::fs::read_to_string(top.join("f")).unwrap(), "high");
    std::fs::write(top.join("g"), "new").unwrap();
    assert!(path("upper/g").exists());
    drop(mounted);
    let mounted = attached(&[&high, &low], None, &path("spare"), None).unwrap();
    let top = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
    assert!(std::fs::write(top.join("g"), "new").is_err());
    drop(mounted);
    assert_eq!(std::fs::read_dir(path("spare")).unwrap().count(), 0);
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(folder.path().to_str().unwrap()));
}

/// Longer than the kernel takes as a value.
#[test]
fn long_paths_go_by_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("l".repeat(200)).join("m".repeat(200));
    for name in ["low", "upper", "work"] {
        std::fs::create_dir_all(long.join(name)).unwrap();
    }
    std::fs::write(long.join("low/f"), "x").unwrap();
    let mounted = overlay(
        &[long.join("low")],
        folder.path(),
        Some((&long.join("upper"), &long.join("work"))),
        folder.path(),
        None,
    );
    let mounted = mounted.unwrap();
    assert!(Path::new(&format!("/proc/self/fd/{}/f", mounted.as_raw_fd())).exists());
}
