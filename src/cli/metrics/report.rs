//! The same metrics as systemd's `io.systemd.Metrics` has them: in camel case, the secret as the object, other labels as fields,
//! and of a histogram the count and the sum.

use std::os::unix::net::UnixStream;

use serde_json::{Map, json};

use super::family::{Family, Kind};
use super::readings::{Readings, Value};
use crate::control::report::{self, Any, Described, Metric, MetricFamilyType, PREFIX};
use crate::process;

/// systemd-report takes 4,096 metrics of all sources together, and fails beyond that (measured, 262): with more secrets than this, what
/// concerns each of them is left out.
const SECRETS_MAX: usize = 250;

/// Answers on this connection.
pub fn answer(stream: UnixStream, readings: &Readings) -> std::io::Result<()> {
    process::runtime()?.block_on(report::serve(stream, list(readings), families()))
}

fn families() -> Vec<Described> {
    let described =
        |name: String, family: &Family, kind| Described { name, description: family.help().to_owned(), kind };
    let all = Family::ALL.iter().flat_map(|family| match family.kind() {
        Kind::Counter => vec![described(name(*family), family, MetricFamilyType::Counter)],
        Kind::Gauge => vec![described(name(*family), family, MetricFamilyType::Gauge)],
        Kind::Histogram => {
            let part =
                |what: &str| described(format!("{}{what}", name(*family)), family, MetricFamilyType::Counter);
            vec![part("Count"), part("Sum")]
        }
    });
    all.collect()
}

fn list(readings: &Readings) -> Vec<Metric> {
    let is_told = |family: Family, many: usize| !is_of_secrets(family) || many <= SECRETS_MAX;
    let told = readings.0.iter().filter(|(family, metrics)| is_told(**family, metrics.len()));
    let all = told
        .flat_map(|(family, metrics)| metrics.iter().map(move |(labels, value)| (*family, labels, value)));
    all.flat_map(|(family, labels, value)| {
        let metric = |name, value| metric(family, labels, name, value);
        match value {
            Value::Number(value) => vec![metric(name(family), json!(value))],
            Value::Histogram { sum, count, .. } => vec![
                metric(format!("{}Count", name(family)), json!(count)),
                metric(format!("{}Sum", name(family)), json!(sum)),
            ],
        }
    })
    .collect()
}

fn metric(family: Family, labels: &[String], name: String, value: serde_json::Value) -> Metric {
    let mut fields: Map<String, serde_json::Value> = family
        .labels()
        .iter()
        .zip(labels)
        .map(|(label, value)| ((*label).to_owned(), json!(value)))
        .collect();
    let object = fields.remove("secret").and_then(|name| Some(name.as_str()?.to_owned()));
    let fields = (!fields.is_empty()).then_some(fields.into());
    Metric { name, object, fields, value: Any(value) }
}

fn is_of_secrets(family: Family) -> bool {
    family.labels().contains(&"secret")
}

/// `opnix_requests_served` is `io.opnix.RequestsServed`.
fn name(family: Family) -> String {
    let words = family.id().trim_start_matches("opnix_").split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    });
    format!("{PREFIX}.{}", words.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_labels_are_as_systemd_has_them() {
        assert_eq!(name(Family::Served), "io.opnix.RequestsServed");
        let of = |family, labels: &[&str], value| {
            let mut readings = Readings::default();
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            readings.0.insert(family, vec![(labels, value)]);
            serde_json::to_value(list(&readings)).unwrap()
        };
        let served = of(Family::Served, &["unit", "memory"], Value::Number(3));
        let fields = json!({"client": "unit", "source": "memory"});
        assert_eq!(served, json!([{"name": "io.opnix.RequestsServed", "fields": fields, "value": 3}]));
        let state = of(Family::SecretState, &["a", "fresh"], Value::Number(1));
        let expected = json!([{"name": "io.opnix.SecretState", "object": "a", "fields": {"state": "fresh"}, "value": 1}]);
        assert_eq!(state, expected);
        let took = Value::Histogram { sum: 0.25, count: 2, buckets: Vec::new() };
        let took = of(Family::Took, &["served"], took);
        assert_eq!((&took[0]["value"], &took[1]["value"]), (&json!(2), &json!(0.25)));
        assert_eq!(took[1]["name"], "io.opnix.RequestDurationSecondsSum");
    }

    #[test]
    fn many_secrets_leave_room_for_other_sources() {
        let of = |count: usize| {
            let mut readings = Readings::default();
            readings.0.insert(Family::Up, vec![(Vec::new(), Value::Number(1))]);
            let ages = (0..count).map(|number| (vec![format!("s{number}")], Value::Number(7)));
            readings.0.insert(Family::Age, ages.collect());
            list(&readings).len()
        };
        assert_eq!((of(SECRETS_MAX), of(SECRETS_MAX + 1)), (SECRETS_MAX + 1, 1));
    }
}
