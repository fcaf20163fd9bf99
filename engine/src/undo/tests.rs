use std::sync::{Arc, Mutex};

use super::*;
use crate::Kind;

#[tokio::test]
async fn everything_is_undone_backwards_whatever_fails() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut undo = Undo::default();
    for step in ["first", "second", "third"] {
        let order = Arc::clone(&order);
        undo.push(step, async move {
            order.lock().unwrap().push(step);
            if step == "second" { Err(Error::new(Kind::Internal, "busy")) } else { Ok(()) }
        });
    }
    let errors = undo.unwind().await;
    assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["undo second: busy"]);
}
