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
use nix::sys::socket::{setsockopt, sockopt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
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
        let headers = vec![("content-type".into(), "application/octet-stream".into())];
        Self { status: 200, headers, body }
    }
}

/// What answers requests.
pub trait Site: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Response;
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16),
    /// This status, and where to go instead.
    Redirect(u16, String),
    /// 429, and after how many seconds to come back.
    Limited(Option<u64>),
    /// An answer, but later.
    Delay(Duration),
    /// An answer, but not before the faults are cleared.
    Hold,
    /// No answer, for as long as the server runs.
    Hang,
    /// The connection is reset.
    Reset,
    /// The body is cut off in its middle.
    Truncate,
    /// An answer that makes no sense.
    Garbage,
}

struct Planned {
    on: String,
    times: usize,
    fault: Fault,
}

struct Shared {
    site: Arc<dyn Site>,
    requests: Mutex<Vec<String>>,
    faults: Mutex<VecDeque<Planned>>,
    /// How often the faults were cleared.
    cleared: AtomicUsize,
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
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
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
            cleared: AtomicUsize::new(0),
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
                    Err(_) => thread::sleep(Duration::from_millis(2)),
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
    }

    /// Lets the next `times` requests fail whose "METHOD /path" begins with `on`.
    pub fn fault(&self, on: &str, times: usize, fault: Fault) {
        self.shared.faults.lock().unwrap().push_back(Planned { on: on.into(), times, fault });
    }

    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.shared.cleared.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn fault_for(&self, request: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let planned =
            faults.iter_mut().find(|planned| planned.times > 0 && request.starts_with(&planned.on))?;
        planned.times -= 1;
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
        let mut cut = false;
        let response = match shared.fault_for(&name) {
            Some(Fault::Status(status)) => Response::json(
                status,
                &serde_json::json!({"status": status, "message": "a fault on command"}),
            ),
            Some(Fault::Redirect(status, location)) => {
                let mut response = Response::json(status, &serde_json::json!({"status": status}));
                response.headers.push(("location".into(), location));
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
                    thread::sleep(delay);
                }
                let cleared = shared.cleared.load(Ordering::Relaxed);
                while matches!(fault, Some(Fault::Hold)) && shared.cleared.load(Ordering::Relaxed) == cleared
                {
                    thread::sleep(Duration::from_millis(10));
                }
                cut = matches!(fault, Some(Fault::Truncate));
                shared.site.answer(&request)
            }
        };
        let mut text =
            format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", response.status, response.body.len());
        for (name, value) in &response.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (text + "\r\n").into_bytes();
        let kept = if cut { response.body.len() / 2 } else { response.body.len() };
        bytes.extend_from_slice(&response.body[..kept]);
        // In one piece: two would wait for each other's acknowledgement.
        stream.write_all(&bytes)?;
        stream.flush()?;
        if cut {
            return Ok(());
        }
    }
    Ok(())
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
