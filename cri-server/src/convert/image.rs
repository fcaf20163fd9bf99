//! Images as the wire shows them.

use std::collections::HashMap;

use tripod_cri_api::v1::{AuthConfig, Image as WireImage, Int64Value};
use tripod_image_service::{Image, ImageUser, RegistryAuth};

/// An image in a list or a status.
pub(crate) fn image(image: &Image) -> WireImage {
    let (uid, username) = match &image.user {
        Some(ImageUser::Uid(value)) => (Some(Int64Value { value: *value }), String::new()),
        Some(ImageUser::Name(name)) => (None, name.clone()),
        None => (None, String::new()),
    };
    WireImage {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        // An image without any file must not look like one that nothing is known of.
        size: image.size.max(1),
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// Details for people.
pub(crate) fn image_details(image: &Image) -> HashMap<String, String> {
    let details = serde_json::json!({
        "created": image.created,
        "config": image.config,
        "volumes": image.volumes,
        "labels": image.labels,
        "layers": image.layers,
    });
    HashMap::from([("info".to_owned(), details.to_string())])
}

/// Credentials of a pull. A message without any is what clients send that have none.
pub(crate) fn auth(auth: AuthConfig) -> Option<RegistryAuth> {
    let AuthConfig { username, password, auth, server_address, identity_token, registry_token } = auth;
    let auth = RegistryAuth { username, password, auth, server_address, identity_token, registry_token };
    let nothing = RegistryAuth { server_address: auth.server_address.clone(), ..RegistryAuth::default() };
    (auth != nothing).then_some(auth)
}
