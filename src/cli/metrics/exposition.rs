//! The metrics in Prometheus' text format (0.0.4), which node_exporter's textfile collector reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::family::{Family, Kind};
use super::readings::{Readings, Value};

impl Readings {
    pub fn exposition(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, metrics) in &self.0 {
            let kind = match family.kind() {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut of_family = encoder.encode_descriptor(family.id(), family.help(), None, kind)?;
            for (labels, value) in metrics {
                if labels.is_empty() {
                    one(*family, value, &mut of_family)?;
                } else {
                    let labels: Vec<(&str, &str)> =
                        family.labels().iter().copied().zip(labels.iter().map(String::as_str)).collect();
                    one(*family, value, &mut of_family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn one(family: Family, value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Number(number) if family.kind() == Kind::Counter => {
            encoder.encode_counter(number, None::<&Exemplar<NoLabelSet, u64>>)
        }
        Value::Number(number) => encoder.encode_gauge(number),
        Value::Histogram { sum, count, buckets } => {
            encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_nothing_else_is_added_to_them() {
        let mut readings = Readings::default();
        let name = "a\"b\\c\nd é ✓ {x=\"y\"}".to_owned();
        readings.0.insert(Family::Age, vec![(vec![name], Value::Number(7))]);
        let text = readings.exposition().unwrap();
        let last = text.lines().last().unwrap();
        assert_eq!(last, r#"opnix_secret_age_seconds{secret="a\"b\\c\nd é ✓ {x=\"y\"}"} 7"#, "{text}");
    }
}
