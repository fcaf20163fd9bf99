use std::sync::Arc;

use super::*;
use crate::{PodConfig, PodState};

fn pod(name: &str) -> PodRecord {
    PodRecord {
        id: PodId::random(),
        config: Arc::new(PodConfig { name: name.into(), ..PodConfig::default() }),
        created_at: 7,
        state: PodState::Ready { shim_pid: 42 },
        ips: vec!["10.0.0.1".parse().unwrap()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_again() {
    let root = tempfile::tempdir().unwrap();
    let (kept, gone) = (pod("kept"), pod("gone"));
    {
        let (records, loaded) = Records::open(root.path()).unwrap();
        assert!(loaded.pods.is_empty());
        records.put_pod(&kept).await.unwrap();
        records.put_pod(&gone).await.unwrap();
        records.remove_pod(&gone.id).await.unwrap();
        records.put_boot("boot-1").await.unwrap();
    }
    let (_records, loaded) = Records::open(root.path()).unwrap();
    assert_eq!(loaded.pods, [kept]);
    assert_eq!(loaded.boot_id.as_deref(), Some("boot-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_needs_no_clean_end() {
    let root = tempfile::tempdir().unwrap();
    let kept = pod("kept");
    let (records, _) = Records::open(root.path()).unwrap();
    records.put_pod(&kept).await.unwrap();
    // What a killed daemon leaves: the file as it is at this moment.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(root.path().join("state.redb"), copy.path().join("state.redb")).unwrap();
    let (_after, loaded) = Records::open(copy.path()).unwrap();
    assert_eq!(loaded.pods, [kept]);
}

#[test]
fn a_broken_database_is_set_aside() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("state.redb"), vec![0x5a; 10_000]).unwrap();
    let (_records, loaded) = Records::open(root.path()).unwrap();
    assert!(loaded.pods.is_empty());
    assert!(root.path().join("state.redb.broken").exists());
}

#[test]
fn a_newer_schema_is_refused_and_kept() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state.redb");
    {
        let database = open(&path).unwrap();
        check_schema(&database, &path).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(META).unwrap().insert("schema", "999").unwrap();
        write.commit().unwrap();
    }
    let error = Records::open(root.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("schema 999"), "{error}");
    assert!(path.exists());
}
