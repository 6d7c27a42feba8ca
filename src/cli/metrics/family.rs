//! The metrics that there are. docs/metrics.md lists the same.

/// What a metric's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only goes up, and begins anew with the service.
    Counter,
    Gauge,
    Histogram,
}

/// Names, kinds, labels and what each means.
macro_rules! families {
    ($($name:ident = $kind:ident $id:literal [$($label:literal),*]: $help:literal;)*) => {
        /// All metrics of one name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family { $($name,)* }

        impl Family {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name for Prometheus; that of a counter has `_total` added.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($label),*],)* }
            }

            pub fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }
        }
    };
}

families! {
    Up = Gauge "opnix_up" []: "Whether the service answers; if not, there is nothing below that only it knows";
    Collected = Gauge "opnix_collected_timestamp_seconds" []: "When these metrics were collected";
    Build = Gauge "opnix_build_info" ["version"]: "The version of the service";
    Started = Gauge "opnix_start_timestamp_seconds" []: "When the service began to count";
    Served = Counter "opnix_requests_served" ["client", "source"]: "Values that were served, by who asked and where they came from";
    Refused = Counter "opnix_requests_refused" ["client", "reason"]: "Requests that were refused, by who asked and the check that failed";
    Abandoned = Counter "opnix_requests_abandoned" []: "Requests for whose answer nobody waited any more";
    Held = Counter "opnix_connections_held" []: "Connections that are not starts of units, and get no answer";
    Took = Histogram "opnix_request_duration_seconds" ["outcome"]: "How long requests took until they were served, or it was decided to refuse them";
    Waiting = Gauge "opnix_requests_waiting" []: "Requests that wait for their value or are being refused";
    RefusedNow = Gauge "opnix_credentials_refused" ["reason"]: "Credentials that units were refused and have not got since, by the check that failed last";
    Missed = Gauge "opnix_credentials_missed" []: "Credentials that units may have, did not get, and have not got since";
    ProviderKind = Gauge "opnix_provider_info" ["kind"]: "Where secrets come from";
    ProviderUp = Gauge "opnix_provider_up" []: "Whether the provider works, as far as its last answers tell";
    ProviderState = Gauge "opnix_provider_state" ["state"]: "1 for the state that the provider is in, 0 for the others";
    ProviderError = Gauge "opnix_provider_error" ["kind"]: "1 for the kind of error that the provider fails with; there is none while it works";
    ProviderDown = Gauge "opnix_provider_down_timestamp_seconds" []: "Since when the provider does not work; there is none while it works";
    ProviderAnswered = Gauge "opnix_provider_last_success_timestamp_seconds" []: "When the provider last answered; there is none until it does";
    NextRefresh = Gauge "opnix_provider_next_refresh_timestamp_seconds" []: "When the provider is asked next in the background";
    Calls = Counter "opnix_provider_calls" ["call", "result"]: "Calls of the provider that have ended, by how; each takes some requests";
    Values = Counter "opnix_provider_values" ["result"]: "References that were fetched, by what came of each";
    Requests = Counter "opnix_provider_requests" []: "Requests that were sent to the provider, or tried to be";
    Used = Gauge "opnix_budget_used_requests" ["window"]: "Requests of the last hour and the last day, as the budget counts them";
    Limit = Gauge "opnix_budget_limit_requests" ["window"]: "The budget of requests for an hour and a day, where there is one";
    LimitedUntil = Gauge "opnix_budget_limited_until_timestamp_seconds" []: "When the limit that the provider says is reached ends; there is none while none is";
    Available = Gauge "opnix_secret_available" ["secret"]: "Whether a unit would be given it now, as far as the provider's last answers tell";
    Needed = Gauge "opnix_secret_needed" ["secret"]: "Whether a unit needs it, or a file that has to be there";
    Age = Gauge "opnix_secret_age_seconds" ["secret"]: "How long ago the provider last gave or confirmed the value; there is none without a value";
    SecretState = Gauge "opnix_secret_state" ["secret", "state"]: "1 for the state that the secret is in, which says what becomes of a unit that asks now; the other states are left out";
    CacheSealed = Gauge "opnix_cache_sealed" []: "Whether values are kept on disk, sealed";
    CacheValues = Gauge "opnix_cache_values" ["place"]: "Values that are kept in memory, those of them that may be on disk, and those that are";
    CacheWritten = Gauge "opnix_cache_written_timestamp_seconds" []: "When the sealed cache was last written";
    CacheWritable = Gauge "opnix_cache_writable" []: "Whether the sealed cache could be written when that was last tried";
    ConfigurationValid = Gauge "opnix_configuration_valid" []: "Whether there is a valid configuration in force; if not, every request is refused";
    ConfigurationCurrent = Gauge "opnix_configuration_current" []: "Whether it is the one of the files, as far as they were read; if not, those are faulty";
    ConfigurationLoaded = Gauge "opnix_configuration_loaded_timestamp_seconds" []: "Since when the configuration is in force";
    TokenCurrent = Gauge "opnix_token_current" []: "Whether the token in force is the one of its file; if not, that one is no good";
    RecordsQueued = Gauge "opnix_records_queued" []: "Records that wait for the journal to take them";
    RecordsDropped = Counter "opnix_records_dropped" []: "Records that were dropped because the journal took none for too long";
    MirrorUp = Gauge "opnix_mirror_up" []: "Whether opnix-mirror.service runs";
    Files = Gauge "opnix_files" ["state"]: "Files of the configuration, by how they are: in_place, differs, missing, left_out (optional) or unknown";
    FilesStuck = Gauge "opnix_files_stuck" []: "Files that left the configuration and cannot be removed";
    NotTold = Gauge "opnix_units_not_told" []: "Units that could not be restarted, reloaded or started after a secret changed";
    MirrorCurrent = Gauge "opnix_mirror_configuration_current" []: "Whether the mirror goes by the configuration of the files; if not, those are faulty";
    Findings = Gauge "opnix_doctor_findings" ["kind", "level"]: "What opnix doctor --offline finds, by kind; only with --doctor";
    Unseen = Gauge "opnix_doctor_unseen" []: "What opnix doctor --offline could not look at; only with --doctor";
}

#[cfg(test)]
impl Family {
    /// As it is written in an exposition.
    pub fn full_name(self) -> String {
        let suffix = if self.kind() == Kind::Counter { "_total" } else { "" };
        format!("{}{suffix}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_list_all_of_them() {
        let docs = include_str!("../../../docs/metrics.md");
        let mut rows: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `opnix_")).collect();
        for family in Family::ALL {
            let kind = format!("{:?}", family.kind()).to_lowercase();
            let labels: Vec<String> = family.labels().iter().map(|label| format!("`{label}`")).collect();
            let row =
                format!("| `{}` | {kind} | {} | {} |", family.full_name(), labels.join(", "), family.help());
            let place = rows.iter().position(|line| *line == row);
            rows.remove(place.unwrap_or_else(|| panic!("docs/metrics.md lacks this row:\n{row}")));
        }
        assert!(rows.is_empty(), "docs/metrics.md has rows of metrics that there are not: {rows:?}");
    }
}
