use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;

#[tokio::test]
async fn work_is_done_once_for_all_who_ask_meanwhile() {
    let flights: Arc<Flights<u8, usize, ()>> = Arc::default();
    let count = Arc::new(AtomicUsize::new(0));
    let ask = || {
        let count = Arc::clone(&count);
        flights.join(1, (), move || async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(count.fetch_add(1, Ordering::SeqCst))
        })
    };
    let (first, second) = (ask(), ask());
    assert!(first.first && !second.first);
    drop(first);
    assert_eq!(second.outcome.await.unwrap(), 0);
    let third = ask();
    assert!(third.first);
    assert_eq!(third.outcome.await.unwrap(), 1);
}

#[tokio::test]
async fn a_panic_leaves_the_key_free() {
    let flights: Arc<Flights<u8, (), ()>> = Arc::default();
    assert!(flights.join(1, (), || async { panic!("on purpose") }).outcome.await.is_err());
    assert!(flights.join(1, (), || async { Ok(()) }).outcome.await.is_ok());
}
