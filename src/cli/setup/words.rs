//! What systemd-creds says of a sealed key that does not open. It exits with 1 whatever the reason is, so words it is.

/// Words that are known to be final: with the machine as it is, the key does not open, however often it is tried. All else
/// may pass: a TPM that is busy, locked, or not there yet, a file that cannot be read, words that nobody here knows.
///
/// What 252, 257 and 262 say was measured with the real ones, with a TPM from swtpm where there is one in it, but for what is
/// marked. Some of it they say only when they are asked to say everything (`SYSTEMD_LOG_LEVEL=debug`): of a key from another
/// TPM, 257 says else no more than of one that is locked.
#[rustfmt::skip]
pub const FINAL: &[Final] = &[
    // The TPM.
    Final { words: &["Failed to load HMAC key in TPM: tpm:parameter(1):integrity check failed"],
        said_by: &[252], meaning: OTHER_TPM },
    Final { words: &["Failed to load key into TPM: tpm:parameter(1):integrity check failed"],
        said_by: &[257], meaning: OTHER_TPM },
    Final { words: &["Key invalid or does not belong to current TPM"],
        said_by: &[262], meaning: OTHER_TPM },
    // Nor does it open while somebody has taken away the TPM's storage root key; sealing a new key makes that one anew, after
    // which the old key is tried once more.
    Final { words: &["Failed to load key into TPM: tpm:handle(1):the handle is not correct for the use"],
        said_by: &[262], meaning: OTHER_TPM },
    // 262 goes on with "TPM policy does not match current system state", which it says of what may pass as well.
    Final { words: &["Current policy digest does not match stored policy digest"],
        said_by: &[252, 257, 262], meaning: "the TPM's PCRs (what was booted, and how) are not those it was sealed for" },

    // The host key. A machine-id that cannot be read is told in the same words but for the first line.
    Final { words: &["Failed to open ", "/credential.secret: No such file or directory"],
        said_by: &[252, 257, 262], meaning: "systemd's host key, which it was sealed with, is gone, or was another machine-id's" },
    Final { words: &["Decryption failed (incorrect key?)"],
        said_by: &[252, 257, 262], meaning: "it was sealed with another host key of systemd, or is damaged" },

    // The file.
    Final { words: &["Encrypted file too short"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unknown encryption format, or corrupted data"], said_by: &[252, 257, 262],
        meaning: "it is damaged, or was sealed by a newer systemd" },
    // Not base64; cut off within base64. Nothing else fails like this when a file is read.
    Final { words: &["Failed to read encrypted credential data: Invalid argument"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Failed to read encrypted credential data: Broken pipe"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Data too long for encrypted credential"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unexpected key size in header"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unexpected block size in header"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["IV size too large"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unexpected tag size in header"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["TPM2 PCR bank invalid or not supported"], said_by: &[252, 257, 262], meaning: DAMAGED },
    // These three from the source, not measured.
    Final { words: &["TPM2 PCR mask out of range"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unexpected TPM2 blob size"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Unexpected TPM2 policy hash size"], said_by: &[252, 257, 262], meaning: DAMAGED },
    Final { words: &["Failed to load HMAC key in TPM: tpm:parameter(1):structure is the wrong size"],
        said_by: &[252], meaning: DAMAGED },
    // 262 says of this that the key does not belong to the TPM.
    Final { words: &["Failed to load key into TPM: tpm:parameter(1):structure is the wrong size"],
        said_by: &[257], meaning: DAMAGED },
    Final { words: &["Embedded credential name ", " does not match filename "], said_by: &[252, 257, 262],
        meaning: "it is another credential, not opnix's key" },
];

const OTHER_TPM: &str = "it belongs to another TPM, or to this one before it was cleared, or is damaged";
const DAMAGED: &str = "the file is damaged";

pub struct Final {
    /// What stands in one line, in this order.
    words: &'static [&'static str],
    /// The versions of systemd of which that is known.
    #[cfg_attr(not(test), allow(dead_code))]
    said_by: &'static [u32],
    /// The same in plain English.
    meaning: &'static str,
}

/// Why a key never opens, and the line that says so; `None` if it may open yet.
pub fn judge(said: &str) -> Option<(&'static str, &str)> {
    let is_said = |line: &str, known: &Final| {
        let mut rest = Some(line);
        for words in known.words {
            rest = rest.and_then(|rest| rest.split_once(words)).map(|(_, after)| after);
        }
        rest.is_some()
    };
    said.lines().find_map(|line| {
        let known = FINAL.iter().find(|known| is_said(line, known))?;
        Some((known.meaning, split_level(line).1))
    })
}

/// What is worth telling of it: the errors, and what led to the first, which says more; if there is none, what was said last.
pub fn complaint(said: &str) -> Option<String> {
    let lines: Vec<_> = said.lines().map(split_level).filter(|(_, line)| !line.trim().is_empty()).collect();
    let first = lines.iter().position(|(level, _)| *level <= ERROR).unwrap_or(lines.len());
    let tells = |line: &str| ["ailed", " not ", "lockout", "refusing"].iter().any(|word| line.contains(word));
    let led = lines[..first].last().filter(|(_, line)| first == lines.len() || tells(line)).into_iter();
    let errors = lines[first..].iter().filter(|(level, _)| *level <= ERROR);
    let told: Vec<_> = led.chain(errors).map(|(_, line)| line.trim()).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Of syslog.
const ERROR: u32 = 3;

/// A line begins with `<facility * 8 + level>` (`SYSTEMD_LOG_TARGET=console-prefixed`), or is somebody else's.
fn split_level(line: &str) -> (u32, &str) {
    let split = || {
        let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
        Some((number.parse::<u32>().ok()? % 8, rest))
    };
    split().unwrap_or((ERROR, line))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of each line of the table, what systemd-creds says in which it stands.
    pub fn finals() -> Vec<String> {
        // What the words leave out is a path or a name.
        let said = |known: &Final| format!("<31>Loading.\n<27>{}, refusing.", known.words.join("/somewhere"));
        FINAL.iter().map(said).collect()
    }

    /// Of each version, what it said of a key from another TPM, of other PCRs, another host key, and none.
    pub const FOREIGN: [&str; 11] = [
        "<31>Loading HMAC key into TPM.\n<27>Failed to load HMAC key in TPM: tpm:parameter(1):integrity check failed",
        "<31>Loading object into TPM.\n<31>Failed to load key into TPM: tpm:parameter(1):integrity check failed\n<27>Failed to unseal secret using TPM2: State not recoverable",
        "<31>Key invalid or does not belong to current TPM.\n<27>TPM key integrity check failed. Key most likely does not belong to this TPM.",
        "<31>Failed to load key into TPM: tpm:handle(1):the handle is not correct for the use\n<27>Failed to unseal secret using TPM2: State not recoverable",
        "<27>Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.",
        "<31>Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.\n<27>Failed to unseal secret using TPM2: Operation not permitted",
        "<31>Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.\n<27>TPM policy does not match current system state. Either system has been tampered with or policy out-of-date: Operation not permitted",
        "<31>Completed TPM2 key unsealing in 52.016ms.\n<27>Decryption failed (incorrect key?): error:00000000:lib(0)::reason(0)",
        "<31>Loaded shared library 'libcrypto.so.3' via dlopen().\n<27>Decryption failed (incorrect key?): No OpenSSL errors.",
        "<31>Failed to open /var/lib/systemd/credential.secret: No such file or directory\n<27>Failed to determine local credential key: No such file or directory",
        "<29>'/var/lib/systemd/credential.secret' comes from a different machine ID, deleting.\n<31>Failed to open /var/lib/systemd/credential.secret: No such file or directory\n<27>Failed to determine local credential key: No such file or directory",
    ];

    /// And of what may pass: measured as well, but for the last three lines.
    pub const PASSING: [&str; 19] = [
        "<27>TPM2 device is in dictionary attack lockout mode.",
        "<31>TPM2 device is in dictionary attack lockout mode.\n<27>Failed to unseal secret using TPM2: No locks available",
        "<27>Failed to open session in TPM: tpm:warn(2.0): out of memory for session contexts",
        "<27>Failed to generate ECC primary key in TPM: tpm:warn(2.0): out of memory for object contexts",
        "<31>Failed to generate primary key in TPM: tpm:warn(2.0): out of memory for object contexts\n<27>Failed to unseal secret using TPM2: State not recoverable",
        "<31>Failed to load key into TPM: tpm:warn(2.0): out of memory for object contexts\n<27>Failed to unseal secret using TPM2: State not recoverable",
        "<27>Failed to initialize TCTI context: tcti:IO failure",
        "<31>Failed to initialize TCTI context: tcti:IO failure",
        "<31>libtss2-esys.so.0 is not installed: libtss2-esys.so.0: cannot open shared object file: No such file or directory\n<27>TPM2 support is not installed.",
        "<31>Shared library 'libtss2-esys.so.0' is not available: libtss2-esys.so.0: cannot open shared object file: No such file or directory",
        // No machine-id; an empty one; one that is not initialized.
        "<27>Failed to determine local credential key: No such file or directory",
        "<27>Failed to determine local credential key: No medium found",
        "<27>Failed to determine local credential key: Package not installed",
        // A host key that others may read, or that is cut off.
        "<31>/var/lib/systemd/credential.secret has permissive access mode, refusing.\n<27>Failed to determine local credential key: Operation not permitted",
        "<31>/var/lib/systemd/credential.secret is too small, refusing.\n<27>Failed to determine local credential key: Invalid argument",
        "<27>Failed to read encrypted credential data: No such file or directory",
        "<27>Failed to read encrypted credential data: Input/output error",
        "<27>TPM policy does not match current system state. Either system has been tampered with or policy out-of-date: Structure needs cleaning",
        "<27>Something that no version has said so far.",
    ];

    #[test]
    fn each_version_tells_what_is_final_and_nothing_else_is() {
        for said in FOREIGN {
            assert!(judge(said).is_some(), "{said}");
        }
        for said in PASSING.into_iter().chain(["", "\n"]) {
            assert!(judge(said).is_none(), "{said}");
        }
        for version in [252, 257, 262] {
            for meaning in [OTHER_TPM, DAMAGED, "PCRs", "host key"] {
                let known =
                    |known: &&Final| known.said_by.contains(&version) && known.meaning.contains(meaning);
                assert!(FINAL.iter().any(|entry| known(&entry)), "{version}: {meaning}");
            }
        }
    }

    #[test]
    fn what_is_told_is_the_errors_and_what_led_to_them() {
        let told =
            complaint("<31>Loading.\n<31>It is in lockout.\n<27>Failed: No locks available\n<31>Bye.\n");
        assert_eq!(told.as_deref(), Some("It is in lockout.; Failed: No locks available"));
        assert_eq!(
            complaint("<31>Using it.\n<31>Failed to initialize TCTI context\n").as_deref(),
            Some("Failed to initialize TCTI context")
        );
        assert_eq!(complaint("<31>Loading.\n<27>Failed\n").as_deref(), Some("Failed"));
        assert_eq!(complaint("of another kind").as_deref(), Some("of another kind"));
        assert_eq!(complaint(" \n"), None);
    }
}
