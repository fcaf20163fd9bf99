//! Time of pulling an image from a registry.

use std::time::Instant;

use serde_json::{Value, json};
use tonic::Status;
use tripod_cri_api::v1;

use crate::{samples::Samples, target::Target};

/// Pulls the image into a store that does not have it, again and again.
pub async fn times(target: &Target, count: usize) -> Result<Value, Status> {
    let mut samples = Samples::default();
    for _ in 0..count {
        remove(target).await?;
        let began = Instant::now();
        target.pull().await?;
        samples.add(began.elapsed());
    }
    remove(target).await?;
    Ok(json!({ "pulls": count, "time": samples.summary() }))
}

/// Removes the image and waits until its layers are gone, which happens in the background.
async fn remove(target: &Target) -> Result<(), Status> {
    let request = v1::RemoveImageRequest { image: Some(target.image.clone()) };
    target.images.clone().remove_image(request).await?;
    let mut before = u64::MAX;
    loop {
        let usage = target.images.clone().image_fs_info(v1::ImageFsInfoRequest {}).await?.into_inner();
        let bytes = usage.image_filesystems.iter().filter_map(|usage| Some(usage.used_bytes.as_ref()?.value)).sum();
        if bytes >= before {
            return Ok(());
        }
        before = bytes;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}
