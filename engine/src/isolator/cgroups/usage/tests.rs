use super::*;

#[test]
fn pressure_lines() {
    let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    let read = pressure(text).unwrap();
    assert_eq!((read.some.avg10, read.some.total, read.full.total), (1.5, 123, 7));
    assert_eq!(pressure("some avg10=0 avg60=0 avg300=0 total=1").unwrap().full.total, 0);
    assert_eq!(pressure(""), None);
}

#[test]
fn io_lines() {
    let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n254:16\nbroken\n";
    let read = io_stat(text);
    assert_eq!(read.len(), 2);
    assert_eq!(read[0], IoUsage { device: (8, 0), read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 });
    assert_eq!(read[1].device, (254, 16));
}

#[test]
fn v1_io_is_put_together_from_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\nTotal 12288\n";
    fs::write(dir.path().join("blkio.throttle.io_service_bytes_recursive"), bytes).unwrap();
    let counts = "254:0 Read 1\n254:0 Write 2\nTotal 3\n";
    fs::write(dir.path().join("blkio.throttle.io_serviced_recursive"), counts).unwrap();
    let device = (254, 0);
    assert_eq!(blkio(dir.path()), [IoUsage { device, read_bytes: 4096, write_bytes: 8192, reads: 1, writes: 2 }]);
}

/// The files of a v2 host, written down: this test needs no such host.
#[test]
fn v2_memory() {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("memory.current", "1000\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 400\nfile 500\nkernel 100\ninactive_file 300\nfile_mapped 5\npgfault 9\npgmajfault 1\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"),
        ("memory.swap.max", "4096\n"),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let mut usage = Usage::default();
    memory_v2(dir.path(), &mut usage);
    let memory = usage.memory;
    assert_eq!((memory.usage, memory.working_set, memory.rss, memory.limit), (Some(1000), Some(700), Some(400), None));
    assert_eq!((memory.oom_kills, memory.failcnt, memory.kernel), (Some(2), Some(3), Some(100)));
    assert_eq!((usage.swap.limit, usage.swap.usage), (Some(4096), None));
}
