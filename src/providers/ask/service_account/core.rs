//! A safe interface to the core of 1Password's official SDK, `libop_uniffi_core.so`.
//!
//! The library has the C interface of uniffi 0.26: arguments and results are buffers that it allocates itself. The parts of
//! its contract that matter here:
//! - a [`RustBuffer`] passed by value belongs to the callee from then on; one that is returned belongs to us, and goes
//!   back through `rustbuffer_free`, once;
//! - a call that can fail takes a [`CallStatus`] whose error buffer is ours when its code is not 0;
//! - a future is polled with a callback, which is called exactly once for each poll, from any thread; it is completed at
//!   most once, after it was reported ready, and freed once, which cancels it if it still runs.
//!
//! It wipes nothing that it keeps or returns, so it runs in a process of its own (`child/process.rs`).

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Instant;

use libloading::Library;
use zeroize::{Zeroize, Zeroizing};

use super::failure::Failure;
use super::waker::{Waker, wake};
use crate::remedy::Remedy;

/// The uniffi contract that this file is written for.
const CONTRACT: u32 = 25;
/// What the library takes as one message, in bytes: the limit that 1Password's own SDKs set themselves.
const MESSAGE_MAX: usize = 50 << 20;

/// The loaded library.
pub struct Core {
    functions: Functions,
    /// Never unloaded: its threads go on until the process ends.
    _library: ManuallyDrop<Library>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("1Password's core library is not at {}", .0.display())]
    Missing(PathBuf),
    #[error("1Password's core library {path} cannot be loaded: {why}")]
    Unloadable { path: PathBuf, why: String },
    #[error("{path} is not the version of 1Password's core library that opnix knows: {what}")]
    Unknown { path: PathBuf, what: String },
}

impl Remedy for LoadError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some(
                "install it with `opnix core install`, or name it: `library` of the provider, or `--library`"
                    .into(),
            ),
            Self::Unknown { .. } => Some("install a version that it knows with `opnix core install`".into()),
            Self::Unloadable { .. } => None,
        }
    }
}

#[repr(C)]
struct RustBuffer {
    capacity: i32,
    length: i32,
    data: *mut u8,
}

#[repr(C)]
struct ForeignBytes {
    length: i32,
    data: *const u8,
}

#[repr(C)]
struct CallStatus {
    code: i8,
    error: RustBuffer,
}

type Future = *const c_void;
type Continuation = extern "C" fn(usize, i8);

/// Declares the functions of the library that are used, and their lookup, from one list.
macro_rules! functions {
    ($($name:ident: $symbol:literal as $type:ty,)*) => {
        struct Functions { $($name: $type,)* }

        impl Functions {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                #[expect(unsafe_code, reason = "a symbol has no type of its own")]
                // SAFETY: the types are those of uniffi 0.26. `Core::load` first calls only the functions for the contract
                // version and the checksums, which take nothing and return a number, and none of the others if those do not
                // match. The library is never unloaded.
                Ok(unsafe { Self { $($name: *library.get::<$type>($symbol)?,)* } })
            }
        }
    };
}

functions! {
    contract: b"ffi_op_uniffi_core_uniffi_contract_version" as extern "C" fn() -> u32,
    checksum_init: b"uniffi_op_uniffi_core_checksum_func_init_client" as extern "C" fn() -> u16,
    checksum_invoke: b"uniffi_op_uniffi_core_checksum_func_invoke" as extern "C" fn() -> u16,
    checksum_release: b"uniffi_op_uniffi_core_checksum_func_release_client" as extern "C" fn() -> u16,
    buffer_from: b"ffi_op_uniffi_core_rustbuffer_from_bytes"
        as unsafe extern "C" fn(ForeignBytes, &mut CallStatus) -> RustBuffer,
    buffer_free: b"ffi_op_uniffi_core_rustbuffer_free" as unsafe extern "C" fn(RustBuffer, &mut CallStatus),
    init_client: b"uniffi_op_uniffi_core_fn_func_init_client" as unsafe extern "C" fn(RustBuffer) -> Future,
    invoke: b"uniffi_op_uniffi_core_fn_func_invoke" as unsafe extern "C" fn(RustBuffer) -> Future,
    poll: b"ffi_op_uniffi_core_rust_future_poll_rust_buffer"
        as unsafe extern "C" fn(Future, Continuation, usize),
    complete: b"ffi_op_uniffi_core_rust_future_complete_rust_buffer"
        as unsafe extern "C" fn(Future, &mut CallStatus) -> RustBuffer,
    free: b"ffi_op_uniffi_core_rust_future_free_rust_buffer" as unsafe extern "C" fn(Future),
}

impl Core {
    /// Loads the library, and checks that its interface is the known one.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        if !path.exists() {
            return Err(LoadError::Missing(path.to_owned()));
        }
        let unloadable = |error: libloading::Error| LoadError::Unloadable {
            path: path.to_owned(),
            why: error.to_string(),
        };
        #[expect(unsafe_code, reason = "loading runs the library's own initializers")]
        // SAFETY: the file is the one that the administrator installed, whose checksum `opnix core install` has checked;
        // whoever can write it can run code as this user anyway.
        let library = unsafe { Library::new(path.as_os_str()) }.map_err(unloadable)?;
        let functions = Functions::find(&library)
            .map_err(|error| LoadError::Unknown { path: path.to_owned(), what: error.to_string() })?;
        functions.check(path)?;
        Ok(Self { functions, _library: ManuallyDrop::new(library) })
    }

    /// Makes a client from its settings (JSON, with the token), which signs in, and returns its id.
    pub fn init_client(&self, settings: &[u8], deadline: Instant) -> Result<String, Failure> {
        let id = self.call(self.functions.init_client, settings, deadline)?;
        String::from_utf8(id.to_vec()).map_err(|_| Failure::Broken("a client id that is not text".into()))
    }

    /// Calls a method of the SDK: JSON in, JSON out.
    pub fn invoke(&self, request: &[u8], deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.call(self.functions.invoke, request, deadline)
    }

    /// Runs one of the two functions that return a future, to its end or to the deadline.
    fn call(
        &self,
        function: unsafe extern "C" fn(RustBuffer) -> Future,
        input: &[u8],
        deadline: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let input = self.lower(input)?;
        #[expect(unsafe_code, reason = "a foreign function")]
        // SAFETY: the buffer is the library's own, and given away here.
        let future = Running { handle: unsafe { function(input) }, functions: &self.functions };
        future.wait(deadline)?;
        let mut status = CallStatus::new();
        #[expect(unsafe_code, reason = "a foreign function")]
        // SAFETY: the future is ready and was not completed before; `Running` frees it afterwards.
        let result = unsafe { (self.functions.complete)(future.handle, &mut status) };
        // After an error the result is an empty buffer that owns nothing.
        self.checked(status)?;
        self.lift(result)
    }

    /// A buffer of the library's with a copy of `bytes` in it.
    fn lower(&self, bytes: &[u8]) -> Result<RustBuffer, Failure> {
        let length = i32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MESSAGE_MAX);
        let length = length.ok_or_else(|| Failure::Broken("a request over 50 MiB".into()))?;
        let mut status = CallStatus::new();
        #[expect(unsafe_code, reason = "a foreign function")]
        // SAFETY: the bytes outlive the call, which copies them.
        let buffer = unsafe {
            (self.functions.buffer_from)(ForeignBytes { length, data: bytes.as_ptr() }, &mut status)
        };
        self.checked(status)?;
        Ok(buffer)
    }

    /// Copies a buffer of the library's, once, and overwrites it before it goes back.
    fn lift(&self, buffer: RustBuffer) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let length = usize::try_from(buffer.length).ok();
        let capacity = usize::try_from(buffer.capacity).ok();
        let (Some(length), Some(capacity)) = (length, capacity) else {
            return Err(Failure::Broken("a buffer of negative length".into()));
        };
        let copy = if buffer.data.is_null() || length == 0 || capacity < length {
            Zeroizing::default()
        } else {
            #[expect(unsafe_code, reason = "foreign memory")]
            // SAFETY: a buffer of uniffi's is a `Vec<u8>` taken apart: `length` of its `capacity` bytes are initialized,
            // and it is ours alone until it is freed below.
            let bytes = unsafe { slice::from_raw_parts_mut(buffer.data, length) };
            let copy = Zeroizing::new(bytes.to_vec());
            bytes.zeroize();
            copy
        };
        let mut status = CallStatus::new();
        #[expect(unsafe_code, reason = "a foreign function")]
        // SAFETY: the buffer came from the library, and goes back once.
        unsafe {
            (self.functions.buffer_free)(buffer, &mut status);
        }
        Ok(copy)
    }

    fn checked(&self, status: CallStatus) -> Result<(), Failure> {
        let text = match status.code {
            0 => return Ok(()),
            _ => self.lift(status.error)?,
        };
        match status.code {
            1 => Err(reported(&text).unwrap_or_else(|| Failure::Broken("an error in no known form".into()))),
            2 => Err(Failure::Broken("it panicked".into())),
            code => Err(Failure::Broken(format!("a call status of {code}"))),
        }
    }
}

impl Functions {
    fn check(&self, path: &Path) -> Result<(), LoadError> {
        let contract = (self.contract)();
        let sums = [(self.checksum_init)(), (self.checksum_invoke)(), (self.checksum_release)()];
        if contract == CONTRACT && sums == [45066, 29143, 57155] {
            return Ok(());
        }
        let what = format!("contract version {contract}, checksums {sums:?}");
        Err(LoadError::Unknown { path: path.to_owned(), what })
    }
}

impl CallStatus {
    fn new() -> Self {
        Self { code: 0, error: RustBuffer { capacity: 0, length: 0, data: std::ptr::null_mut() } }
    }
}

/// Reads the only error variant of the interface: its number, the length of a JSON text, the text.
fn reported(error: &[u8]) -> Option<Failure> {
    #[derive(serde::Deserialize)]
    struct Report {
        name: String,
        message: String,
    }
    let text = error.strip_prefix(&1_i32.to_be_bytes())?;
    let (length, text) = text.split_first_chunk::<4>()?;
    let text = text.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)?;
    let Report { name, message } = serde_json::from_slice(text).ok()?;
    Some(Failure::Reported { name, message })
}

/// A future of the library's. Dropping it frees it, which cancels it if it still runs.
struct Running<'c> {
    handle: Future,
    functions: &'c Functions,
}

impl Running<'_> {
    fn wait(&self, deadline: Instant) -> Result<(), Failure> {
        loop {
            let waker = Waker::register();
            #[expect(unsafe_code, reason = "a foreign function")]
            // SAFETY: the future is alive until `self` is dropped; the callback takes any number and touches only
            // what is Rust's own.
            unsafe {
                (self.functions.poll)(self.handle, wake, waker.key());
            }
            match waker.wait(deadline)? {
                0 => return Ok(()),
                // It could go on: poll again.
                _ => continue,
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a foreign function")]
        // SAFETY: the handle came from the library and is freed once. A callback that is still due is called now, and does
        // nothing, because its waker is gone.
        unsafe {
            (self.functions.free)(self.handle);
        }
    }
}
