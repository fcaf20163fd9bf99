use std::thread;

use super::{super::wire::tests::message, *};

/// A systemd that answers one call with these messages.
fn systemd(answers: Vec<Vec<u8>>) -> (Bus, thread::JoinHandle<Message>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let mut hello = [0; 24];
        theirs.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"\0AUTH EXTERNAL 31303030\r");
        theirs.read_exact(&mut [0]).unwrap();
        theirs.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        theirs.read_exact(&mut [0; 7]).unwrap();
        let mut fixed = [0; FIXED];
        theirs.read_exact(&mut fixed).unwrap();
        let mut bytes = vec![0; wire::length(&fixed).unwrap()];
        bytes[..FIXED].copy_from_slice(&fixed);
        theirs.read_exact(&mut bytes[FIXED..]).unwrap();
        for answer in answers {
            theirs.write_all(&answer).unwrap();
        }
        wire::parse(&bytes).unwrap()
    });
    (Bus::over(ours, 1000).unwrap(), thread)
}

fn accepted(job: &str) -> Vec<u8> {
    let mut body = Encoder::default();
    body.string(job);
    message(Kind::Return, 1, "", "", "o", &body.finish())
}

fn refused(name: &str) -> Vec<u8> {
    let mut body = Encoder::default();
    body.string("in its own words");
    message(Kind::Error, 1, "", name, "s", &body.finish())
}

fn over(job: &str, result: &str) -> Vec<u8> {
    let mut body = Encoder::default();
    body.u32(17);
    body.string(job);
    body.string("a.scope");
    body.string(result);
    message(Kind::Signal, 0, "JobRemoved", "", "uoss", &body.finish())
}

#[test]
fn the_end_of_the_right_job_is_waited_for() {
    let news = message(Kind::Signal, 0, "UnitNew", "", "", b"");
    let (mut bus, thread) = systemd(vec![news, over("/job/8", "failed"), accepted("/job/9"), over("/job/9", "done")]);
    let properties = [("PIDs", Value::Numbers(vec![42])), ("Delegate", Value::Flag(true)), ("X", Value::Number(1))];
    bus.start("a.scope", &properties).unwrap();
    let call = thread.join().unwrap();
    assert_eq!((call.kind, call.member.as_str()), (Kind::Call, "StartTransientUnit"));
    let mut body = call.body();
    assert_eq!((body.string(), body.string()), (Some("a.scope"), Some("fail")));
}

#[test]
fn the_end_may_be_told_before_the_beginning() {
    let (mut bus, _thread) = systemd(vec![over("/job/9", "done"), accepted("/job/9")]);
    bus.start("a.scope", &[]).unwrap();
}

#[test]
fn failures_are_told_in_systemds_words() {
    let (mut bus, _thread) = systemd(vec![refused("org.freedesktop.systemd1.UnitExists")]);
    let error = bus.start("a.scope", &[]).unwrap_err().to_string();
    assert!(error.contains("UnitExists") && error.contains("in its own words"), "{error}");
    let (mut bus, _thread) = systemd(vec![accepted("/job/1"), over("/job/1", "timeout")]);
    let error = bus.start("a.scope", &[]).unwrap_err().to_string();
    assert!(error.contains("a.scope") && error.contains("timeout"), "{error}");
    let (mut bus, _thread) = systemd(vec![b"HTTP/1.1 400 Bad Request".to_vec()]);
    assert!(matches!(bus.start("a.scope", &[]), Err(BusError::Broken { .. })));
    let (mut bus, _thread) = systemd(vec![]);
    assert!(matches!(bus.start("a.scope", &[]), Err(BusError::Broken { .. })), "it hung up");
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let (mut bus, _thread) = systemd(vec![refused(NO_SUCH_UNIT)]);
    bus.stop("a.scope").unwrap();
    let (mut bus, _thread) = systemd(vec![refused("org.freedesktop.DBus.Error.AccessDenied")]);
    bus.stop("a.scope").unwrap_err();
}
