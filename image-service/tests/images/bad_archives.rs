//! Archives that are broken, hostile, or cut off.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tripod_engine::Kind;
use tripod_image_service::{Digest, LoadRequest};

use super::{
    archives::{Files, blob, descriptor, layout, load, named, nothing_is_left, sample, tar},
    fixture::{Image, OCI_MANIFEST, Tar},
    root::Root,
};

#[tokio::test]
async fn a_bad_archive_is_refused_by_its_entry() {
    let image = sample();
    let good = layout(&[&image], &[descriptor(&image, &named("app:1"))]);
    let layer = blob(&image.layers[0].digest);
    let config = blob(&Digest::of(&image.config));
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = good.clone();
        change(&mut files);
        tar(&files)
    };
    let content = |files: &mut Files, path: &str, content: &[u8]| {
        files.iter_mut().find(|(name, _)| name == path).unwrap().1 = content.to_vec();
    };
    let other = Tar::new().file("x", "y").gzip();
    let whole = tar(&good);
    let swapped = Image { layers: vec![image.layers[1].clone(), image.layers[0].clone()], ..image.clone() };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"digest": Digest::of(&image.config), "size": image.config.len()},
        "layers": swapped.layers.iter().map(|layer| json!({"digest": layer.digest, "size": 1})).collect::<Vec<_>>(),
    });
    let swapped = Image { manifest: manifest.to_string().into_bytes(), ..image.clone() };
    let mut twice = good.clone();
    twice.push(good[0].clone());
    let case = |archive: Vec<u8>, words: &[&str]| {
        (archive, words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>())
    };
    let cases = [
        case(b"no archive at all".repeat(100), &["broken"]),
        case(Vec::new(), &["neither an index.json"]),
        case(tar(&[("a".into(), b"1".to_vec())]), &["neither an index.json"]),
        case(whole[..700].to_vec(), &["ends in the middle"]),
        case(with(&|files| content(files, &layer, &other.blob)), &[&layer, &other.digest.to_string()]),
        case(with(&|files| content(files, &layer, b"\x1f\x8bnonsense")), &[&layer, "digest"]),
        case(with(&|files| content(files, &config, b"{}")), &[&config, "digest"]),
        case(with(&|files| files.retain(|(name, _)| *name != layer)), &[&layer, "does not have it"]),
        case(with(&|files| files.retain(|(name, _)| *name != config)), &[&config, "does not have it"]),
        case(with(&|files| content(files, "index.json", b"{")), &["index.json"]),
        case(with(&|files| content(files, "index.json", b"[]")), &["index.json"]),
        case(with(&|files| content(files, "oci-layout", br#"{"imageLayoutVersion":"2.0"}"#)), &["oci-layout", "2.0"]),
        case(tar(&layout(&[&swapped], &[descriptor(&swapped, &named("app:1"))])), &["unpacks to"]),
        case(tar(&layout(&[&image], &[descriptor(&image, &named("UPPER:1"))])), &["lower case"]),
        case(tar(&twice), &["twice"]),
        case(
            tar(&[("manifest.json".into(), br#"[{"Config":"../../etc/passwd","Layers":[]}]"#.to_vec())]),
            &["leads out"],
        ),
        case(tar(&[("manifest.json".into(), br#"[{"Config":"c.json","Layers":[]}]"#.to_vec())]), &["c.json"]),
        case(Tar::new().symlink("a/layer.tar", "../../x").finish(), &["a/layer.tar", "leads out"]),
        case(Tar::new().file("../escape", "x").finish(), &["climbs out"]),
        case(Tar::new().device("null", (1, 3)).finish(), &["null", "files, folders and links"]),
    ];
    for (index, (archive, words)) in cases.iter().enumerate() {
        let root = Root::new().await;
        let loaded = load(&root, archive, None, None).await;
        let text = loaded.expect_err(&words.join(" ")).to_string();
        assert!(root.images.list().is_empty());
        assert!(words.iter().all(|word| text.contains(word.as_str())), "{index}: {words:?}: {text}");
        assert!(text.starts_with("cannot load the archive"), "{text}");
    }
    // What was unpacked on the way goes.
    let root = Root::new().await;
    load(&root, &cases[8].0, None, None).await.unwrap_err();
    let layers = root.path().join("layers");
    for _ in 0..1200 {
        if std::fs::read_dir(&layers).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("layers of refused archives stay");
}

#[tokio::test]
async fn limits_hold_for_archives() {
    let image = sample();
    let archive = tar(&layout(&[&image], &[descriptor(&image, &named("app:1"))]));
    let root = Root::with(|config| config.limits.layer_bytes = 100_000).await;
    let error = load(&root, &archive, None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains(&blob(&image.layers[0].digest)), "{error}");
    let root = Root::with(|config| (config.limits.config_bytes, config.limits.manifest_bytes) = (100, 100)).await;
    let error = load(&root, &archive, None, None).await.unwrap_err();
    assert!(error.to_string().contains("larger than 100 bytes") || error.to_string().contains("neither"), "{error}");
}

#[tokio::test]
async fn whoever_stops_sending_loads_nothing() {
    let (image, root) = (sample(), Root::new().await);
    let archive = tar(&layout(&[&image], &[descriptor(&image, &named("app:1"))]));
    let (sink, source) = mpsc::channel(4);
    sink.send(Ok(Bytes::copy_from_slice(&archive[..archive.len() - 3000]))).await.unwrap();
    sink.send(Err(std::io::Error::other("the client went away"))).await.unwrap();
    let request = LoadRequest { archive: source, name: None, platform: None };
    let error = root.images.load(request).await.unwrap_err();
    assert!(error.to_string().contains("the client went away"), "{error}");
    assert!(root.images.list().is_empty());
    nothing_is_left(&root).await;
}
