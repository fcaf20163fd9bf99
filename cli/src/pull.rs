//! Fetching and removing images.

use std::{io::Read, process::ExitCode};

use tripod_cri_api::v1::{AuthConfig, Image, ImageSpec, ImageStatusRequest, PullImageRequest, RemoveImageRequest};

use crate::{
    CliError, Client, Embed,
    args::{PullArgs, RmiArgs},
    image::with_store,
    progress::Progress,
    stop::{outcome, report},
};

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() })
}

/// An image that is here, if it is.
pub(crate) async fn find(client: &mut Client, image: &str) -> Result<Option<Image>, CliError> {
    let answer = client.images.image_status(ImageStatusRequest { image: spec(image), verbose: false }).await;
    Ok(answer.map_err(CliError::call(format!("look for image {image}")))?.into_inner().image)
}

/// Fetches an image and shows how far it is.
pub(crate) async fn pull(
    client: &mut Client,
    image: &str,
    auth: Option<AuthConfig>,
    quiet: bool,
) -> Result<String, CliError> {
    let mut progress = Progress::begin(image, quiet);
    let request = PullImageRequest { image: spec(image), auth, sandbox_config: None };
    let mut images = client.images.clone();
    let answer = progress.during(client, images.pull_image(request)).await;
    let answer = answer.map_err(CliError::call(format!("pull {image}")));
    let size = if answer.is_ok() { find(client, image).await?.map(|image| image.size) } else { None };
    progress.end(size);
    Ok(answer?.into_inner().image_ref)
}

pub(crate) async fn command(args: PullArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let auth = match args.username {
        Some(username) => Some(AuthConfig { username, password: password()?, ..AuthConfig::default() }),
        None => None,
    };
    let PullArgs { connection, local, quiet, image, .. } = args;
    with_store(&connection, &local, embed, async |mut client| {
        println!("{}", pull(&mut client, &image, auth, quiet).await?);
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// A password from standard input: on the command line everybody on the host would see it.
fn password() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(CliError::io("read the password from standard input"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

pub(crate) async fn remove(args: RmiArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let RmiArgs { connection, local, images } = args;
    with_store(&connection, &local, embed, async |mut client| {
        let mut failed = 0;
        for image in &images {
            failed += report(image, remove_one(&mut client, image).await);
        }
        Ok(outcome(failed))
    })
    .await
}

async fn remove_one(client: &mut Client, image: &str) -> Result<(), CliError> {
    // The call itself is content with an image that is not there; a person who has mistyped is not.
    if find(client, image).await?.is_none() {
        return Err(CliError::NotFound(format!("no image {image:?}; `tripod images` shows all")));
    }
    let request = RemoveImageRequest { image: spec(image) };
    client.images.remove_image(request).await.map_err(CliError::call(format!("remove image {image}")))?;
    Ok(())
}
