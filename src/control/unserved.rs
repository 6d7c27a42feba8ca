//! What `Unserved` tells: what units do not get.

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

use super::answers::{refusal, seconds};
use super::interface::Refusal;
use crate::remedy::Remedy;
use crate::server::{Configuration, News, Service, Wait};

/// What `Unserved` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Type)]
pub struct Unserved {
    /// The number of the last refusal that was told. It goes up, in a boot also through restarts of the service.
    pub number: u64,
    /// Those that come next, the first first; of several refusals of one credential to one unit only the last.
    pub refusals: Vec<Refusal>,
    /// Requests that wait for some seconds already, each once.
    pub delays: Vec<Delay>,
}

/// A unit that waits for a credential for some seconds already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Delay {
    pub unit: String,
    pub credential: String,
    /// When it first asked.
    pub since: u64,
    /// When it is refused at the latest; none means never.
    pub until: Option<u64>,
    /// Why its value could not be had so far, if anything is known of that.
    pub error: Option<String>,
}

impl Unserved {
    pub fn of(news: News, service: &Service) -> Self {
        let configuration = service.configuration();
        let refused = |(claim, refused)| refusal(&configuration, claim, refused);
        Self {
            number: news.number,
            refusals: news.refusals.into_iter().map(refused).collect(),
            delays: news.waits.into_iter().map(|wait| delay(&configuration, wait)).collect(),
        }
    }
}

fn delay(configuration: &Configuration, wait: Wait) -> Delay {
    let secret = configuration.store().zip(configuration.entry_for(&wait.claim));
    let error = secret.and_then(|(store, entry)| {
        let of_it = store.secret_report(entry, store.answers()).failure.map(|failure| failure.error.lines());
        of_it.or_else(|| store.provider_report().down.map(|down| down.error.lines()))
    });
    Delay {
        unit: wait.claim.unit.to_string(),
        credential: wait.claim.credential.to_string(),
        since: seconds(wait.since.date()),
        until: wait.until.map(|until| seconds(until.date())),
        error,
    }
}
