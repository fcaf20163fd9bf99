use super::*;

#[test]
fn stores_begin_at_different_places_and_none_where_others_have_numbers() {
    let firsts: std::collections::BTreeSet<u32> = (1000..2000).map(first).collect();
    assert_eq!(firsts.len(), 1000);
    for inode in [0, 1, 12345, u64::from(u32::MAX), u64::MAX] {
        let first = first(inode);
        assert!((OURS.start..=MAPPED - TURN).contains(&first), "{inode}: {first}");
    }
    // Kubelet's first and systemd's first.
    assert!(!OURS.contains(&1_048_577) && !OURS.contains(&2_147_483_648));
}

/// Where the filesystem has project quotas in force (the test VM) this does all that there is; elsewhere nobody is given
/// an account, and the reason is told.
#[test]
fn a_layer_has_an_account_and_a_limit_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let containers = dir.path().join("containers");
    let id = ContainerId::parse(&"a".repeat(64)).unwrap();
    let (folder, trash) = (containers.join(&id), dir.path().join("trash"));
    let (upper, work) = (folder.join(overlay::UPPER), folder.join("work"));
    [&upper, &work, &trash].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    // Without a project there is nothing to be had in common.
    like(&upper, &work).unwrap();
    let quotas = match Quotas::open(&containers) {
        Ok(quotas) => quotas,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            println!("not tried, for {} has no project quotas: {why}", dir.path().display());
            return;
        }
    };
    assert!(quotas.counted(&id, &folder).is_none() && !quotas.limit(&id, &folder, 1 << 20));
    quotas.assign(&id, &[&upper, &work], true).unwrap();
    let own = project(&upper).unwrap().unwrap();
    assert_eq!(project(&work).unwrap(), Some(own));
    std::fs::create_dir(upper.join("below")).unwrap();
    assert_eq!(project(&upper.join("below")).unwrap(), Some(own));
    std::fs::write(upper.join("below/file"), vec![1; 300_000]).unwrap();
    // From one to the other as overlayfs does it, and out of both.
    std::fs::write(work.join("new"), "").unwrap();
    std::fs::rename(work.join("new"), upper.join("new")).unwrap();
    let counted = quotas.counted(&id, &folder).unwrap();
    assert_eq!((counted.written.inodes, counted.held), (5, counted.written));
    assert!((300_000..400_000).contains(&counted.written.bytes), "{counted:?}");

    // The next daemon finds it, and gives others other numbers.
    let next = Quotas::open(&containers).unwrap();
    assert_eq!(next.counted(&id, &folder), Some(counted));
    let other = ContainerId::parse(&"b".repeat(64)).unwrap();
    let rootfs = containers.join(&other).join(copy::ROOTFS);
    std::fs::create_dir_all(&rootfs).unwrap();
    next.assign(&other, &[&rootfs], true).unwrap();
    assert!(project(&rootfs).unwrap().is_some_and(|project| project != own));

    // What was copied is not the container's own.
    std::fs::write(rootfs.join("copied"), vec![1; 1 << 20]).unwrap();
    let size = next.size(&other).unwrap();
    let told = serde_json::json!({ "bytes": size.bytes, "inodes": size.inodes }).to_string();
    std::fs::write(containers.join(&other).join("rootfs.size"), told).unwrap();
    assert_eq!(next.counted(&other, &containers.join(&other)).unwrap().written, WritableLayer::default());
    assert!(next.limit(&other, &containers.join(&other), 1 << 20));
    let left = next.left(&other).unwrap();
    assert!((1000 << 10..=1 << 20).contains(&left), "{left}");

    // A limit goes with the layer, also one that was forgotten in the trash.
    assert!(next.limit(&id, &folder, 2 << 20) && next.left(&id).is_some());
    std::fs::rename(&folder, trash.join("old")).unwrap();
    next.release(&id);
    assert_eq!((next.left(&id), next.size(&id)), (None, None));
    let quota = quota::get(&next.folder, own).unwrap();
    assert_eq!((quota.limit, quota.inodes), (None, 5));
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir(&upper).unwrap();
    next.assign(&id, &[&upper], false).unwrap();
    assert!(project(&upper).unwrap().is_some_and(|project| project < MAPPED));
    // Whoever can leave the account is counted by walking, and held to a limit all the same.
    assert!(next.counted(&id, &folder).is_none() && next.limit(&id, &folder, 1 << 20));
}
