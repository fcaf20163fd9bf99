//! How far a pull is, while it goes on: on a terminal as bars, elsewhere as two lines.
//!
//! The call that pulls says nothing until it ends; the layers come from the daemon's verbose status, a few times a
//! second. Another runtime does not tell there: then only the time passes.

use std::{
    collections::HashMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tripod_cri_api::v1::StatusRequest;

use crate::{
    Client,
    show::{bytes, short},
};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// How often the daemon is asked, and how long it may take to answer.
const LOOK: Duration = Duration::from_millis(250);

const HEAD: &str = "{spinner} {msg} {elapsed}";
const LAYER: &str = "  {prefix} [{bar:30}] {bytes:>11} / {total_bytes:<11} {msg}";

/// What is shown while an image is pulled.
#[derive(Debug)]
pub(crate) struct Progress {
    image: String,
    started: Instant,
    bars: Option<Bars>,
    quiet: bool,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    layers: HashMap<String, ProgressBar>,
}

/// Progress of one layer, as the daemon tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    digest: String,
    size: u64,
    downloaded: u64,
    state: String,
}

impl Progress {
    /// Begins to show.
    pub(crate) fn begin(image: &str, quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let all = MultiProgress::new();
            let head = all.add(ProgressBar::new_spinner().with_style(style(HEAD)));
            head.set_message(format!("pulling {image}"));
            head.enable_steady_tick(TICK);
            Bars { all, head, layers: HashMap::new() }
        });
        if bars.is_none() && !quiet {
            eprintln!("pulling {image}");
        }
        Self { image: image.to_owned(), started: Instant::now(), bars, quiet }
    }

    /// Shows how far each layer is, until `pull` has ended.
    pub(crate) async fn during<T>(&mut self, client: &Client, pull: impl Future<Output = T>) -> T {
        let Some(bars) = &mut self.bars else { return pull.await };
        let watch = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Ok(Some(pulls)) = tokio::time::timeout(LOOK, look(client)).await {
                    draw(bars, &layers(&pulls, &self.image));
                }
            }
        };
        tokio::select! {
            done = pull => done,
            never = watch => never,
        }
    }

    /// Ends with what came of it.
    pub(crate) fn end(self, size: Option<u64>) {
        if let Some(bars) = &self.bars {
            bars.layers.values().for_each(ProgressBar::finish_and_clear);
            bars.head.finish_and_clear();
        }
        if let (false, Some(size)) = (self.quiet, size) {
            let seconds = self.started.elapsed().as_secs_f64();
            eprintln!("pulled {} ({}) in {seconds:.1} s", self.image, bytes(size));
        }
    }
}

/// The daemon's list of pulls, as JSON; nothing if it does not tell.
async fn look(client: &Client) -> Option<Value> {
    let answer = client.runtime.clone().status(StatusRequest { verbose: true }).await.ok()?;
    serde_json::from_str(answer.into_inner().info.get("pulls")?).ok()
}

/// The layers of one pull out of the list: pairs of an image and how far it is.
fn layers(pulls: &Value, image: &str) -> Vec<Layer> {
    let pulls = pulls.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(pull) = pulls.iter().find(|pull| pull[0] == image) else { return Vec::new() };
    let layers = pull[1]["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    layers
        .iter()
        .map(|layer| Layer {
            digest: layer["digest"].as_str().unwrap_or_default().to_owned(),
            size: layer["size"].as_u64().unwrap_or_default(),
            downloaded: layer["downloaded"].as_u64().unwrap_or_default(),
            state: match layer["present"].as_bool() {
                Some(true) => "here already".to_owned(),
                _ => layer["state"].as_str().unwrap_or_default().to_owned(),
            },
        })
        .collect()
}

fn draw(bars: &mut Bars, layers: &[Layer]) {
    let Bars { all, layers: drawn, .. } = bars;
    for layer in layers {
        let bar = drawn
            .entry(layer.digest.clone())
            .or_insert_with(|| all.add(ProgressBar::new(layer.size).with_style(style(LAYER).progress_chars("=> "))));
        bar.set_prefix(short(&layer.digest));
        bar.set_message(layer.state.clone());
        let here = ["done", "here already"].contains(&layer.state.as_str());
        bar.set_position(if here { layer.size } else { layer.downloaded });
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test holds them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;
    use serde_json::json;

    use super::{HEAD, LAYER, Layer, layers};

    #[test]
    fn templates_are_valid() {
        for template in [HEAD, LAYER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn layers_of_the_right_pull() {
        let layer =
            json!({ "digest": "sha256:ab", "size": 9, "downloaded": 4, "present": false, "state": "downloading" });
        let pulls = json!([["other:1", { "layers": [] }], ["busybox:1", { "layers": [layer] }]]);
        let expected = Layer { digest: "sha256:ab".into(), size: 9, downloaded: 4, state: "downloading".into() };
        assert_eq!(layers(&pulls, "busybox:1"), [expected]);
        assert!(layers(&pulls, "busybox:2").is_empty());
        assert!(layers(&json!("odd"), "busybox:1").is_empty());
    }
}
