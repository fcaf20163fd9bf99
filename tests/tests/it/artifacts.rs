//! OCI artifacts: pulled like images, mounted as volumes.

use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Code;
use tripod_cri_api::v1::{ImageSpec, Mount};
use tripod_tests::{Fault, Node, Registry, digest, host_pod, image_spec, shell, tests, tripod, with_input};

tests![an_artifact_is_a_volume, artifacts_that_are_refused];

const KIND: &str = "application/vnd.example.model.v1";

/// Keeps an artifact under `REPOSITORY:TAG` and gives its digest.
fn push(registry: &Registry, name: &str, blobs: &[(&str, &[u8])]) -> String {
    let layers: Vec<Value> = blobs
        .iter()
        .map(|(title, content)| {
            registry.push_blob(&digest(content), Bytes::copy_from_slice(content));
            json!({"mediaType": "application/octet-stream", "digest": digest(content), "size": content.len(),
                   "annotations": {"org.opencontainers.image.title": title}})
        })
        .collect();
    let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                          "artifactType": KIND, "config": config, "layers": layers});
    registry.push_manifest(name, serde_json::to_vec(&manifest).unwrap().into())
}

/// 18.
async fn an_artifact_is_a_volume(node: &mut Node) {
    let registry = node.registry().await;
    let weights: Vec<u8> = (0..700_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // What looks like an archive stays as it is.
    let packed: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let blobs: [(&str, &[u8]); 4] =
        [("model/weights.bin", &weights), ("model.tar.gz", packed), ("readme.txt", b"read me\n"), ("none", b"")];
    let id = push(&registry, "model:1", &blobs);
    push(&registry, "other:1", &blobs);
    let cri = node.ready().await;
    let name = "registry.test/model:1";
    assert_eq!(cri.pull(name).await.unwrap(), id, "an artifact is known by its manifest");
    assert_eq!(cri.pull("registry.test/other:1").await.unwrap(), id);
    cri.pull(name).await.unwrap();
    assert_eq!(registry.served(&digest(&weights)), 1, "fetched once");
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let volume = Mount {
        container_path: "/volume".into(),
        image: Some(ImageSpec { image: id.clone(), ..Default::default() }),
        readonly: true,
        ..Default::default()
    };
    let script = "cd /volume; ls -ln model; stat -c '%n %a %u %g %Y %s' * model/*; sha256sum model/weights.bin model.tar.gz; \
                  cat readme.txt; touch new 2>/dev/null || echo read-only";
    let mut container = shell("main", script);
    container.mounts = vec![volume.clone()];
    let text = cri.outcome(&pod, &config, &container).await.unwrap().1;
    for line in [
        format!("model.tar.gz 644 0 0 0 {}", packed.len()),
        "readme.txt 644 0 0 0 8".to_owned(),
        "none 644 0 0 0 0".to_owned(),
        format!("model/weights.bin 644 0 0 0 {}", weights.len()),
        digest(&weights).replace("sha256:", "") + "  model/weights.bin",
        digest(packed).replace("sha256:", "") + "  model.tar.gz",
        "read me".to_owned(),
        "read-only".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let (code, output, error) = with_input(tripod(&["image", "check"]), b"").await;
    assert_eq!(code, 0, "{}{error}", String::from_utf8_lossy(&output));

    // It is no root filesystem, and no image that could be saved.
    let mut wrong = shell("wrong", "true");
    wrong.image = Some(image_spec(name));
    let error = cri.create(&pod, &config, &wrong).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains(KIND), "{error}");
    let (code, _, error) = with_input(tripod(&["image", "save", name]), b"").await;
    assert!(code == 1 && error.contains(KIND), "{error}");

    // It outlives the daemon, and its name while a container has it.
    let mut late = shell("late", "cat /volume/readme.txt");
    late.mounts = vec![volume];
    let late = cri.create(&pod, &config, &late).await.unwrap();
    let cri = node.restart().await;
    cri.remove_image(&id).await.unwrap();
    cri.start(&late).await.unwrap();
    assert_eq!(cri.exited(&late).await.exit_code, 0);
}

async fn artifacts_that_are_refused(node: &mut Node) {
    let registry = node.registry().await;
    node.settings.raw("image.timeouts.attempts", "1");
    let cri = node.start().await;
    for (number, (titles, told)) in [
        (&["../../etc/passwd"][..], "../../etc/passwd"),
        (&["/etc/passwd"], "/etc/passwd"),
        (&["a", "a"], "twice"),
        (&["a", "a/b"], "twice"),
        (&["a/.wh..wh..opq"], ".wh."),
        (&["a\nb"], "control"),
    ]
    .into_iter()
    .enumerate()
    {
        let blobs: Vec<(&str, &[u8])> = titles.iter().map(|title| (*title, &b"content"[..])).collect();
        let name = format!("hostile:{number}");
        push(&registry, &name, &blobs);
        let error = cri.pull(&format!("registry.test/{name}")).await.unwrap_err();
        assert!(error.code() == Code::FailedPrecondition && error.message().contains(told), "{error}");
    }
    assert_eq!(registry.served(&digest(b"content")), 0);
    push(&registry, "broken:1", &[("a", b"first"), ("b", b"second")]);
    for fault in [Fault::Corrupt, Fault::Truncated, Fault::Status(500), Fault::Status(404)] {
        registry.fail(&digest(b"second"), fault);
        cri.pull("registry.test/broken:1").await.unwrap_err();
        assert!(cri.all_images().await.is_empty());
    }
    registry.fail(&digest(b"second"), Fault::None);
    cri.pull("registry.test/broken:1").await.unwrap();
}
