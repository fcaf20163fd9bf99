//! Figures about pulls and the image store, taken when somebody asks for them.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use tripod_image_service::{BOUNDS, Figures, ImageService};

/// Looks at a store.
#[derive(Debug)]
pub(crate) struct ImageFigures {
    service: ImageService,
}

impl ImageFigures {
    /// Looks at this store.
    pub(crate) fn new(service: &ImageService) -> Self {
        Self { service: service.clone() }
    }
}

impl Collector for ImageFigures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode(&self.service.figures(), encoder)
    }
}

fn encode(figures: &Figures, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let help = "Pulls that ended, by outcome";
    let mut pulls = encoder.encode_descriptor("tripod_image_pulls", help, None, MetricType::Counter)?;
    for (outcome, count) in &figures.pulls {
        ConstCounter::new(*count).encode(pulls.encode_family(&[("outcome", *outcome)])?)?;
    }
    let help = "Time that pulls took which brought their image";
    let mut took =
        encoder.encode_descriptor("tripod_image_pull_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let durations = &figures.durations;
    let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
    let classes: Vec<(f64, u64)> = bounds.zip(durations.classes.iter().copied()).collect();
    took.encode_histogram::<NoLabelSet>(durations.sum, durations.classes.iter().sum(), &classes, None)?;

    let help = "Layers on their way into the store, by state";
    let mut layers = encoder.encode_descriptor("tripod_image_layers_under_way", help, None, MetricType::Gauge)?;
    for (state, count) in &figures.layers_under_way {
        gauge(*count).encode(layers.encode_family(&[("state", *state)])?)?;
    }
    let help = "Layers of pulled images, by where they were found";
    let mut layers = encoder.encode_descriptor("tripod_image_pulled_layers", help, None, MetricType::Counter)?;
    for (from, count) in [("registry", figures.layers_fetched), ("store", figures.layers_shared)] {
        ConstCounter::new(count).encode(layers.encode_family(&[("from", from)])?)?;
    }

    let gauges = [
        ("tripod_image_pulls_running", "Pulls under way", None, figures.pulls_running),
        ("tripod_image_under_way", "Layers on their way, compressed", Some(Unit::Bytes), figures.bytes_under_way),
        ("tripod_image_here", "What is here of the layers on their way", Some(Unit::Bytes), figures.bytes_here),
        ("tripod_image_store_images", "Images in the store", None, figures.images),
        ("tripod_image_store_layers", "Layers in the store", None, figures.layers),
        ("tripod_image_store", "Layers in the store, each by itself", Some(Unit::Bytes), figures.layer_bytes),
        ("tripod_image_saved", "Disk that files save which layers share", Some(Unit::Bytes), figures.saved_bytes),
        ("tripod_image_saved_files", "Files that are there for several layers at once", None, figures.saved_files),
    ];
    for (name, help, unit, number) in gauges {
        gauge(number).encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
    }
    let counters = [
        (
            "tripod_image_downloaded",
            "Layers from registries, failed downloads too",
            Some(Unit::Bytes),
            figures.downloaded_bytes,
        ),
        ("tripod_image_gc_runs", "Runs of the garbage collection", None, figures.collections),
        ("tripod_image_gc_layers", "Layers that the garbage collection removed", None, figures.collected_layers),
        ("tripod_image_gc", "Disk that the garbage collection freed", Some(Unit::Bytes), figures.collected_bytes),
    ];
    for (name, help, unit, number) in counters {
        let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        ConstCounter::new(number).encode(metric)?;
    }
    Ok(())
}

fn gauge(number: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus_client::{encoding::text::encode as text, registry::Registry};
    use tripod_image_service::Durations;

    use super::*;

    #[derive(Debug)]
    struct Fixed(Figures);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            encode(&self.0, encoder)
        }
    }

    #[test]
    fn figures_are_told_in_prometheus_words() {
        let mut durations = Durations::default();
        (durations.classes[0], durations.classes[BOUNDS.len()], durations.sum) = (2, 1, 700.5);
        let figures = Figures {
            pulls: BTreeMap::from([("no_progress", 1), ("ok", 3)]),
            durations,
            layers_under_way: BTreeMap::from([("downloading", 2)]),
            bytes_under_way: 10,
            downloaded_bytes: 77,
            collected_bytes: 5,
            saved_bytes: 8192,
            saved_files: 2,
            ..Figures::default()
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(figures)));
        let mut told = String::new();
        text(&mut told, &registry).unwrap();
        for line in [
            "tripod_image_pulls_total{outcome=\"no_progress\"} 1",
            "tripod_image_pulls_total{outcome=\"ok\"} 3",
            "tripod_image_pull_duration_seconds_bucket{le=\"0.1\"} 2",
            "tripod_image_pull_duration_seconds_bucket{le=\"+Inf\"} 3",
            "tripod_image_pull_duration_seconds_count 3",
            "tripod_image_layers_under_way{state=\"downloading\"} 2",
            "tripod_image_under_way_bytes 10",
            "tripod_image_downloaded_bytes_total 77",
            "tripod_image_gc_bytes_total 5",
            "tripod_image_saved_bytes 8192",
            "tripod_image_saved_files 2",
            "tripod_image_pulled_layers_total{from=\"store\"} 0",
        ] {
            assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
        }
    }
}
