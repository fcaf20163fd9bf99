use std::{collections::HashSet, thread::sleep, time::Duration};

use super::Tokens;

#[test]
fn a_token_works_once() {
    let tokens = Tokens::new(Duration::from_secs(60), 10);
    let token = tokens.put("a").unwrap();
    assert_eq!(tokens.take("other"), None);
    assert_eq!(tokens.take(&token), Some("a"));
    assert_eq!(tokens.take(&token), None);
}

#[test]
fn a_token_ends() {
    let tokens = Tokens::new(Duration::from_millis(1000), 10);
    let token = tokens.put("a").unwrap();
    assert_eq!(tokens.len(), 1);
    sleep(Duration::from_millis(1100));
    assert_eq!(tokens.take(&token), None);
    assert_eq!(tokens.len(), 0);
}

#[test]
fn so_many_wait_and_no_more() {
    let tokens = Tokens::new(Duration::from_secs(60), 2);
    let first = tokens.put(1).unwrap();
    tokens.put(2).unwrap();
    assert_eq!(tokens.put(3), None);
    tokens.take(&first);
    assert!(tokens.put(3).is_some());
}

#[test]
fn tokens_fit_into_urls_and_differ() {
    let tokens = Tokens::new(Duration::from_secs(60), 1000);
    let all: HashSet<String> = (0..1000).map(|n| tokens.put(n).unwrap()).collect();
    assert_eq!(all.len(), 1000);
    for token in all {
        assert_eq!(token.len(), 32);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    }
}
