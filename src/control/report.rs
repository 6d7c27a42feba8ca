//! `io.systemd.Metrics`, by which systemd (262 and later) collects metrics: `systemd-report` asks each socket in
//! `/run/systemd/report/`. One process answers one connection, to which systemd's `Accept=yes` leads.

use std::io;

use futures_util::Stream;
use futures_util::stream::iter;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use zlink::introspect::{CustomType, Type};
use zlink::names::TypeName;
use zlink::{Reply, Server, idl, introspect, service};

use super::connection;

/// What the names of all our metrics begin with: `systemd-report` wants it to be the name of the socket.
pub const PREFIX: &str = "io.opnix";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum MetricFamilyType {
    /// A counter metric family type which is a monotonically increasing value
    Counter,
    /// A gauge metric family type which is a value that can go up and down
    Gauge,
    /// A string metric family type
    String,
    /// An object metric family type whose value is an arbitrary JSON object
    Object,
}

/// What `List` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Metric {
    /// Metric family name, e.g. io.systemd.Manager.unitsByTypeTotal or io.systemd.Manager.unitActiveState
    pub name: String,
    /// Metric object name can be unit name, process name, etc, e.g. dev-hvc0.device
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Metric fields are values to differentiate between different metrics in the same metric family
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<serde_json::Value>,
    /// Metric value
    pub value: Any,
}

/// A number or a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Any(pub serde_json::Value);

impl Type for Any {
    const TYPE: &'static idl::Type<'static> = &idl::Type::Any;
}

/// What `Describe` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Described {
    /// Metric family name
    pub name: String,
    /// Metric family description
    pub description: String,
    /// Metric family type
    #[serde(rename = "type")]
    #[zlink(rename = "type")]
    pub kind: MetricFamilyType,
}

/// What can go wrong with a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "error")]
enum Error {
    #[serde(rename = "io.systemd.Metrics.NoSuchMetric")]
    NoSuchMetric,
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore,
}

impl introspect::ReplyError for Error {
    const VARIANTS: &'static [&'static idl::Error<'static>] =
        &[&idl::Error::new(TypeName::from_static_str_unchecked("NoSuchMetric"), &[], &[])];
}

struct Metrics {
    list: Vec<Metric>,
    families: Vec<Described>,
}

/// Metrics APIs
#[service(
    interface = "io.systemd.Metrics",
    types = [MetricFamilyType],
    vendor = "opnix",
    product = "opnix",
    version = env!("CARGO_PKG_VERSION"),
)]
impl Metrics {
    /// Method to get a list of metrics among which the collection of related metrics forms a metric family
    #[zlink(more)]
    async fn list(&self, more: bool) -> impl Stream<Item = Result<Reply<Metric>, Error>> + Unpin {
        replies(self.list.clone(), more)
    }

    /// Method to get the metric families
    #[zlink(more)]
    async fn describe(&self, more: bool) -> impl Stream<Item = Result<Reply<Described>, Error>> + Unpin {
        replies(self.families.clone(), more)
    }
}

/// One for each, as systemd's own metrics are told.
fn replies<T>(all: Vec<T>, more: bool) -> impl Stream<Item = Result<Reply<T>, Error>> + Unpin {
    let left = all.len();
    let wrong = match (more, left) {
        (false, _) => Some(Error::ExpectedMore),
        (true, 0) => Some(Error::NoSuchMetric),
        (true, _) => None,
    };
    let good = wrong.is_none();
    let of = move |(number, one)| Ok(Reply::new(Some(one)).set_continues(Some(number + 1 < left)));
    iter(wrong.into_iter().map(Err).chain(all.into_iter().filter(move |_| good).enumerate().map(of)))
}

/// Answers the calls of one connection.
pub async fn serve(
    stream: std::os::unix::net::UnixStream,
    list: Vec<Metric>,
    families: Vec<Described>,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let metrics = Metrics { list, families };
    connection::limited(&stream, |ready| Server::new(ready, metrics).run()).await.map(drop)
}
