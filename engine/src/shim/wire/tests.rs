use std::{io::Read, time::Duration};

use super::*;

fn pair() -> (Writer, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (_, half) = UnixStream::from_std(ours).unwrap().into_split();
    (Writer::new(half), theirs)
}

#[tokio::test]
async fn a_frame_whose_sender_goes_away_does_not_tear_the_next_one() {
    let (mut writer, mut peer) = pair();
    let (long, short) = (vec![b'l'; 4 << 20], vec![b's'; 10]);
    // Nobody reads, so that it stops in the middle.
    let cut = tokio::time::timeout(Duration::from_millis(50), writer.write(&long, &[])).await;
    assert!(cut.is_err() && !writer.rest.is_empty());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    writer.write(&short, &[]).await.unwrap();
    drop(writer);
    assert!(reader.join().unwrap().unwrap() == [long, short].concat());
}

#[tokio::test]
async fn a_frame_that_has_not_begun_is_never_sent() {
    let (mut writer, mut peer) = pair();
    let long = vec![b'l'; 4 << 20];
    assert!(tokio::time::timeout(Duration::from_millis(50), writer.write(&long, &[])).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(50), writer.write(b"never", &[])).await.is_err());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    writer.write(b"last", &[]).await.unwrap();
    drop(writer);
    assert!(reader.join().unwrap().unwrap() == [long, b"last".to_vec()].concat());
}
