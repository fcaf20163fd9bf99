//! `image prune`: images that nobody uses go.

use std::{process::ExitCode, str::FromStr};

use clap::Args;
use tripod_cri_api::own::{LabelFilter, PruneRequest};

use super::with_store;
use crate::{
    CliError, Embed, Moment,
    args::{Connection, Local},
    show::{bytes, short},
};

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// Those with tags, too, if no container uses them
    #[arg(short, long)]
    all: bool,
    /// Only what is older (until=TIME, by the image's own time of creation), or has a label (label=KEY or
    /// label=KEY=VALUE); may be repeated
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Only tell what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What narrows the choice down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    Until(Moment),
    Label(String, Option<String>),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("until", moment)) => moment.parse().map(Self::Until),
            Some(("label", label)) if !label.is_empty() => Ok(match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            }),
            _ => Err("neither until=TIME nor label=KEY[=VALUE]".to_owned()),
        }
    }
}

pub(super) async fn command(args: PruneArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let PruneArgs { connection, local, all, filter, dry_run } = args;
    let mut request = PruneRequest { all, dry_run, ..PruneRequest::default() };
    for filter in filter {
        match filter {
            // Of several the earliest counts: all filters hold together.
            Filter::Until(moment) => {
                let nanoseconds = moment.nanoseconds();
                let before = request.created_before;
                request.created_before = if before == 0 { nanoseconds } else { before.min(nanoseconds) };
            }
            Filter::Label(key, value) => request.labels.push(LabelFilter { key, value }),
        }
    }
    let pruned = with_store(&connection, &local, embed, async |mut client| {
        let answer = client.own.prune(request).await;
        Ok(answer.map_err(CliError::call("prune images"))?.into_inner())
    })
    .await?;
    for image in &pruned.images {
        println!("{} {}", short(&image.id), image.names.join(" "));
    }
    let (images, layers, size) = (pruned.images.len(), pruned.layers, bytes(pruned.bytes));
    match dry_run {
        true => println!("{images} images and {layers} layers would go, and {size} would be free."),
        false => println!("{images} images and {layers} layers are gone, and {size} are free."),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn filters_as_people_type_them() {
        let label = |key: &str, value: Option<&str>| Filter::Label(key.to_owned(), value.map(str::to_owned));
        assert_eq!("label=a".parse(), Ok(label("a", None)));
        assert_eq!("label=a=b=c".parse(), Ok(label("a", Some("b=c"))));
        assert!(matches!("until=24h".parse(), Ok(Filter::Until(_))));
        for wrong in ["until=", "label=", "label", "dangling=true", ""] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
