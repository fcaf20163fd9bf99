//! Indexes, and indexes in indexes.

use serde_json::{Value, json};
use tripod_engine::Kind;
use tripod_image_service::Digest;

use super::{
    fake::{Fake, Reply, Seen},
    fixture::{Image, OCI_INDEX, OCI_MANIFEST, Tar},
    root::Root,
};

const HERE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Documents by digest; the last is what the tag is.
#[derive(Clone, Default)]
struct Documents(Vec<(Digest, Vec<u8>, &'static str)>);

impl Documents {
    /// Keeps a document, and gives its descriptor.
    fn add(&mut self, bytes: Vec<u8>, media_type: &'static str) -> Value {
        let digest = Digest::of(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.0.push((digest, bytes, media_type));
        descriptor
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        self.add(index.to_string().into_bytes(), OCI_INDEX)
    }

    fn answer(&self, seen: &Seen) -> Option<Reply> {
        let (_, wanted) = seen.path.split_once("/manifests/")?;
        let found = match wanted {
            "v1" => self.0.last(),
            digest => self.0.iter().find(|(has, ..)| has.to_string() == digest),
        };
        let Some((_, bytes, media_type)) = found else { return Some(Reply::status(404)) };
        Some(Reply::Answer(200, vec![("content-type", (*media_type).to_owned())], bytes.clone()))
    }
}

fn on(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture, "os.version": "1.2.3"});
    descriptor
}

fn image() -> Image {
    Image::new(vec![Tar::new().file("a", "first").gzip()])
}

async fn pull(documents: Documents) -> Result<String, tripod_engine::Error> {
    let fake = Fake::with(&image(), move |seen| documents.answer(seen)).await;
    Root::new().await.pull(&fake.name()).await.map(|image| image.id)
}

#[tokio::test]
async fn what_runs_here_is_found_in_indexes_of_indexes() {
    let image = image();
    let mut all = Documents::default();
    let own = all.add(image.manifest.clone(), OCI_MANIFEST);
    let others = all.index(&[on(own.clone(), "s390x")]);
    let inner = all.index(&[others.clone(), on(own.clone(), HERE)]);
    all.index(&[others, inner, on(own, "s390x")]);
    assert_eq!(pull(all).await.unwrap(), image.id());
}

#[tokio::test]
async fn nesting_has_an_end() {
    let mut all = Documents::default();
    let mut descriptor = all.add(image().manifest, OCI_MANIFEST);
    for _ in 0..4 {
        descriptor = all.index(&[descriptor]);
    }
    assert_eq!(pull(all.clone()).await.unwrap(), image().id());
    all.index(&[descriptor]);
    let error = pull(all).await.unwrap_err();
    assert!(error.to_string().contains("nested deeper than 4"), "{error}");
    // Many that are empty, side by side.
    let mut all = Documents::default();
    let many: Vec<Value> = (0..40)
        .map(|number| all.index(&[json!({"digest": Digest::of(&[number]), "size": 1, "platform": {"os": "linux", "architecture": "none"}})]))
        .collect();
    let half: Vec<Value> = many.chunks(10).map(|some| all.index(some)).collect();
    all.index(&half);
    let error = pull(all).await.unwrap_err();
    assert!(error.to_string().contains("more than 16 indexes"), "{error}");
}

#[tokio::test]
async fn documents_that_are_no_images_are_told_apart() {
    let mut schema1 = Documents::default();
    let old = json!({"schemaVersion": 1, "name": "x", "tag": "v1", "fsLayers": [{"blobSum": Digest::of(b"x")}], "history": []});
    schema1.add(old.to_string().into_bytes(), "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let error = pull(schema1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("schema 1") && error.to_string().contains("push the image again"), "{error}");
    let mut other = Documents::default();
    let own = other.add(image().manifest, OCI_MANIFEST);
    other.index(&[on(own.clone(), "s390x"), on(own, "riscv64")]);
    let error = pull(other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains(HERE) && error.to_string().contains("linux/s390x, linux/riscv64"), "{error}");
}
