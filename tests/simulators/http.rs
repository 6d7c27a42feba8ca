//! A small HTTP/1.1 server on threads, with faults on command and a record of what was asked for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, value: &Value) -> Self {
        let headers = vec![("content-type".into(), "application/json".into())];
        Self { status, headers, body: value.to_string().into_bytes() }
    }

    pub fn bytes(body: Vec<u8>) -> Self {
        Self::of_type("application/octet-stream", 200, body)
    }

    fn of_type(kind: &str, status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type".into(), kind.into())], body }
    }
}

/// What answers requests.
pub trait Site: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Response;

    /// The ids of the items that are asked for, where that is not in the path.
    fn items(&self, _: &Request) -> Vec<String> {
        Vec::new()
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16),
    /// This status from something in between that knows nothing of JSON, such as a proxy.
    Html(u16),
    /// This status, and where to go instead.
    Redirect(u16, String),
    /// 429, and after how many seconds to come back.
    Limited(Option<u64>),
    /// An answer, but later.
    Delay(Duration),
    /// An answer, but not before what is held is released, or the faults are cleared.
    Hold,
    /// An answer whose body comes in drips of so many bytes, with a pause before each.
    Slow(usize, Duration),
    /// An answer that does not say how long it is.
    Chunked,
    /// 200, without a body.
    Empty,
    /// No answer, for as long as the server runs.
    Hang,
    /// The connection is reset.
    Reset,
    /// The body is cut off in its middle.
    Truncate,
    /// An answer that makes no sense.
    Garbage,
}

/// What a proxy says of itself.
const PAGE: &str = "<html><head><title>nginx</title></head><body>not the server itself</body></html>";

struct Planned {
    on: String,
    times: usize,
    fault: Fault,
}

struct Shared {
    site: Arc<dyn Site>,
    requests: Mutex<Vec<String>>,
    faults: Mutex<VecDeque<Planned>>,
    /// Which requests met a fault.
    met: Mutex<Vec<String>>,
    /// How often what is held was released.
    released: AtomicUsize,
    stopped: AtomicBool,
}

/// A made-up certificate for the loopback, signed by itself.
pub struct Tls {
    config: Arc<ServerConfig>,
    /// For clients that are to trust it.
    pub pem: String,
}

impl Tls {
    pub fn new() -> Self {
        // As rcgen would.
        Self::valid(1975, 4096)
    }

    /// Valid from the first day of one year to that of another.
    pub fn valid(from: i32, until: i32) -> Self {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        (parameters.not_before, parameters.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let signing_key = KeyPair::generate().unwrap();
        let cert = parameters.self_signed(&signing_key).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        Self { config: Arc::new(config), pem: cert.pem() }
    }
}

/// Stops when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// The listener is given, because it may live in the network of a container.
    pub fn start(listener: TcpListener, tls: Option<&Tls>, site: Arc<dyn Site>) -> Self {
        let tls = tls.map(|tls| tls.config.clone());
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            site,
            requests: Mutex::default(),
            faults: Mutex::default(),
            met: Mutex::default(),
            released: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        // Not blocking, so that it sees its end: connecting from here is not possible into another network.
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            while !accepting.stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (shared, tls) = (accepting.clone(), tls.clone());
                        thread::spawn(move || {
                            // A client that goes away is its own business.
                            let _ = serve(stream, tls, &shared);
                        });
                    }
                    Err(_) => {
                        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                        let _ = poll(&mut fds, 50_u16);
                    }
                }
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked for, as "METHOD /path", in order.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
        self.shared.met.lock().unwrap().clear();
    }

    /// Lets the next `times` requests fail whose "METHOD /path" begins with `on`, or is it, where a space ends it; or which
    /// ask for an item, alone or among others, if that is "item ID".
    pub fn fault(&self, on: &str, times: usize, fault: Fault) {
        self.shared.faults.lock().unwrap().push_back(Planned { on: on.into(), times, fault });
    }

    /// Which requests met a fault, in order.
    pub fn faults_met(&self) -> Vec<String> {
        self.shared.met.lock().unwrap().clone()
    }

    /// Lets go on what a fault holds.
    pub fn release(&self) {
        self.shared.released.fetch_add(1, Ordering::Relaxed);
    }

    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.release();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn fault_for(&self, name: &str, request: &Request) -> Option<Fault> {
        let items = self.site.items(request);
        let concerns = |on: &str| match on.strip_prefix("item ") {
            Some(item) => items.iter().any(|asked| asked == item),
            None => format!("{name} ").starts_with(on),
        };
        let mut faults = self.faults.lock().unwrap();
        let planned = faults.iter_mut().find(|planned| planned.times > 0 && concerns(&planned.on))?;
        planned.times -= 1;
        self.met.lock().unwrap().push(name.to_owned());
        Some(planned.fault.clone())
    }
}

fn serve(socket: TcpStream, tls: Option<Arc<ServerConfig>>, shared: &Shared) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return converse(&mut &socket, &socket, shared) };
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    converse(&mut StreamOwned::new(connection, &socket), &socket, shared)
}

fn converse(stream: &mut (impl Read + Write), socket: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer)? {
        let name = format!("{} {}", request.method, request.path);
        shared.requests.lock().unwrap().push(name.clone());
        let fault = shared.fault_for(&name, &request);
        let response = match &fault {
            Some(Fault::Status(status)) => Response::json(
                *status,
                &serde_json::json!({"status": status, "message": "a fault on command"}),
            ),
            Some(Fault::Html(status)) => Response::of_type("text/html", *status, PAGE.into()),
            Some(Fault::Empty) => Response::of_type("application/json", 200, Vec::new()),
            Some(Fault::Redirect(status, location)) => {
                let mut response = Response::json(*status, &serde_json::json!({"status": status}));
                response.headers.push(("location".into(), location.clone()));
                response
            }
            Some(Fault::Limited(seconds)) => {
                let mut response =
                    Response::json(429, &serde_json::json!({"status": 429, "message": "too many requests"}));
                response.headers.extend(seconds.map(|seconds| ("retry-after".into(), seconds.to_string())));
                response
            }
            Some(Fault::Hang) => {
                while !shared.stopped.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(50));
                }
                return Ok(());
            }
            Some(Fault::Reset) => {
                setsockopt(&socket.as_fd(), sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
                return Ok(());
            }
            Some(Fault::Garbage) => Response::bytes(b"<html>busy</html>".to_vec()),
            fault => {
                if let Some(Fault::Delay(delay)) = fault {
                    thread::sleep(*delay);
                }
                let released = shared.released.load(Ordering::Relaxed);
                while matches!(fault, Some(Fault::Hold))
                    && shared.released.load(Ordering::Relaxed) == released
                {
                    thread::sleep(Duration::from_millis(10));
                }
                shared.site.answer(&request)
            }
        };
        send(stream, response, fault.as_ref())?;
        if matches!(fault, Some(Fault::Truncate)) {
            return Ok(());
        }
    }
    Ok(())
}

fn send(stream: &mut impl Write, response: Response, fault: Option<&Fault>) -> io::Result<()> {
    let Response { status, mut headers, mut body } = response;
    let whole = body.len();
    match fault {
        Some(Fault::Chunked) => {
            headers.push(("transfer-encoding".into(), "chunked".into()));
            body = in_chunks(&body);
        }
        _ => headers.push(("content-length".into(), whole.to_string())),
    }
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut bytes = format!("HTTP/1.1 {status} x\r\n{headers}\r\n").into_bytes();
    match fault {
        Some(Fault::Slow(drip, pause)) => {
            stream.write_all(&bytes)?;
            for drip in body.chunks(*drip) {
                stream.flush()?;
                thread::sleep(*pause);
                stream.write_all(drip)?;
            }
        }
        _ => {
            body.truncate(if matches!(fault, Some(Fault::Truncate)) { whole / 2 } else { body.len() });
            // In one piece: two would wait for each other's acknowledgement.
            bytes.extend(body);
            stream.write_all(&bytes)?;
        }
    }
    stream.flush()
}

fn in_chunks(body: &[u8]) -> Vec<u8> {
    let chunks = body.chunks(100).chain([&[][..]]);
    chunks.flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).collect()
}

/// `None` at the end of the connection.
fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        let head = parsed.parse(buffer).map_err(io::Error::other)?;
        if let httparse::Status::Complete(start) = head {
            let target = parsed.path.unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let headers: Vec<(String, String)> = parsed
                .headers
                .iter()
                .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
                .collect();
            let mut request = Request {
                method: parsed.method.unwrap_or_default().into(),
                path: path.into(),
                query: query.into(),
                headers,
                body: Vec::new(),
            };
            let length: usize =
                request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            while buffer.len() < start + length {
                if fill(stream, buffer)? == 0 {
                    return Ok(None);
                }
            }
            request.body = buffer[start..start + length].to_vec();
            buffer.drain(..start + length);
            return Ok(Some(request));
        }
        if fill(stream, buffer)? == 0 {
            return Ok(None);
        }
    }
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 16 << 10];
    let length = stream.read(&mut piece)?;
    buffer.extend_from_slice(&piece[..length]);
    Ok(length)
}
