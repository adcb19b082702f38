//! Checks that no secret is in an argument, a log or an answer, with any output requested.

#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]
#![cfg(target_os = "linux")]

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

use common::{Directory, bounded, free_udp, run_at, service};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

/// A command with its home, killed when dropped; its output is in files.
struct Person<'a> {
    child: Child,
    directory: &'a Directory,
    name: &'a str,
}

impl<'a> Person<'a> {
    fn start(directory: &'a Directory, name: &'a str, input: &str, arguments: &[&str]) -> Self {
        let file = |kind: &str| directory.path(&format!("{name}.{kind}"));
        fs::write(file("in"), input).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(arguments)
            .arg("-vv")
            .env("RUST_LOG", "trace")
            .env("ADIT_HOME", directory.path(name))
            .stdin(File::open(file("in")).unwrap())
            .stdout(File::create(file("out")).unwrap())
            .stderr(File::create(file("err")).unwrap())
            .spawn()
            .unwrap();
        Self { child, directory, name }
    }

    fn said(&self, kind: &str) -> String {
        fs::read_to_string(self.directory.path(&format!("{}.{kind}", self.name))).unwrap()
    }

    /// Returns the first line on its stdout.
    fn line(&self) -> String {
        let line = bounded(|| self.said("out").split_once('\n').map(|(line, _)| line.to_owned()));
        line.unwrap_or_else(|| panic!("{}", self.said("err")))
    }

    fn arguments(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cmdline", self.child.id())).unwrap()
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the usual text forms of bytes.
fn shown(bytes: &[u8]) -> Vec<String> {
    let mut list = format!("{bytes:?}");
    list = list.trim_matches(['[', ']']).to_owned();
    let escaped = bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "\\x{byte:02x}");
        out
    });
    let hex = HEXLOWER.encode(bytes);
    vec![list, escaped, hex.to_uppercase(), hex, BASE64.encode(bytes)]
}

/// Returns every private key below a directory, as it is in its file and in the usual forms of its
/// bytes.
fn keys(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(keys(&path));
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        for part in text.split("-----BEGIN PRIVATE KEY-----").skip(1) {
            let body = part.split("-----END").next().unwrap();
            found.extend(body.split_whitespace().map(str::to_owned));
            let der = BASE64.decode(body.split_whitespace().collect::<String>().as_bytes());
            // The scalar of a P-256 key in PKCS#8 (RFC 5915 §3).
            found.extend(shown(&der.unwrap()[36..68]));
        }
    }
    found
}

#[test]
fn no_private_key_and_no_invite_is_in_an_argument_a_log_or_an_answer() {
    let directory = Directory::new();
    let target = service(|_| Ok(())).to_string();
    let listen = free_udp().to_string();
    let arguments = ["expose", &target, "--name", "web", "--listen", &listen, "--json"];
    let owner = Person::start(&directory, "owner", "", &arguments);
    let made: serde_json::Value = serde_json::from_str(&owner.line()).unwrap();
    let invite = made["invite"].as_str().unwrap();
    let guest = Person::start(&directory, "guest", invite, &["connect", "-"]);
    guest.line();

    let mut heard =
        [&owner, &guest].map(|person| person.arguments() + &person.said("err")).concat();
    heard += &guest.said("out");
    for who in ["owner", "guest"] {
        for command in [&["id", "show"][..], &["invite", "list"], &["status"]] {
            for json in [&[][..], &["--json"]] {
                let output = run_at(&directory.path(who), &[command, json].concat());
                heard += &String::from_utf8(output.stdout).unwrap();
                heard += &String::from_utf8(output.stderr).unwrap();
            }
        }
    }
    assert!(heard.len() > 10_000 && heard.contains("TRACE"), "{} bytes", heard.len());

    let contents = BASE64URL_NOPAD.decode(invite.strip_prefix("adit1_").unwrap().as_bytes());
    let mut secrets = shown(&contents.unwrap()[8..40]);
    secrets.push(invite.to_owned());
    secrets.extend(["owner", "guest"].map(|who| keys(&directory.path(who))).concat());
    assert!(secrets.len() > 3 * 7, "{} secrets", secrets.len());
    for secret in secrets {
        assert!(!heard.contains(&secret), "{secret} was told");
    }
}
