//! A large file from a web server to `curl`, and whether it arrived whole.
//!
//! It decides how it is served and fetched, never what happens meanwhile.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::{Directory, within};
use super::namespace::Namespace;
use super::stage::{SOON, free_port};

/// Longest time that a download takes.
const LIMIT: Duration = Duration::from_secs(600);

/// Whether the programs that it takes are here; says so if not.
pub(crate) fn can_download() -> bool {
    let has = |program: &&str| {
        let asked = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let can = ["nginx", "curl", "sha256sum"].iter().all(has);
    if !can {
        eprintln!("SKIPPED: a download, because nginx, curl or sha256sum is missing");
    }
    can
}

/// A web server that serves a file of random bytes, named "original".
pub(crate) struct Nginx {
    pub(crate) port: u16,
    pub(crate) original: PathBuf,
    _process: Process,
}

impl Nginx {
    /// Starts it in a namespace; everything that it needs is in the directory.
    pub(crate) fn start(directory: &Directory, inside: &Namespace, bytes: u64) -> Self {
        let (port, original) = (free_port(inside), directory.path("original"));
        let mut random = File::open("/dev/urandom").unwrap().take(bytes);
        std::io::copy(&mut random, &mut File::create(&original).unwrap()).unwrap();
        let root = directory.path("");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}{kind};\n", root.display()))
            .concat();
        let config = format!(
            "user root; daemon off; master_process off; pid {root}nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off;\n{temporary}server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n",
            root = root.display()
        );
        let config = directory.write("nginx.conf", &config);
        let mut command = inside.command("nginx");
        command.args(["-e", "stderr", "-c"]).arg(config).stdin(Stdio::null());
        let process = Process(command.spawn().unwrap());
        let listens = || inside.enter(|| TcpStream::connect(("127.0.0.1", port)).ok().map(|_| ()));
        assert!(within(SOON, listens).is_some(), "nginx does not listen");
        Self { port, original, _process: process }
    }
}

/// Starts to fetch that file at so many bytes a second at most.
pub(crate) fn download(
    inside: &Namespace,
    from: SocketAddr,
    to: &Path,
    per_second: u64,
) -> Process {
    let mut curl = inside.command("curl");
    curl.args(["-sSf", "--max-time", &LIMIT.as_secs().to_string()]);
    curl.args(["--limit-rate", &per_second.to_string(), "-o"]).arg(to);
    curl.arg(format!("http://{from}/original")).stdin(Stdio::null());
    Process(curl.spawn().unwrap())
}

/// What `sha256sum` says of a file.
pub(crate) fn digest(path: &Path) -> Vec<u8> {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(output.status.success());
    output.stdout.split(|&byte| byte == b' ').next().unwrap().to_vec()
}

/// A child that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Waits until a file that it writes is so long.
    ///
    /// # Panics
    /// If it has ended before that.
    pub(crate) fn reaches(&mut self, file: &Path, bytes: u64) {
        let length = || std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        let reached = within(LIMIT, || {
            let has_ended = self.0.try_wait().unwrap().is_some();
            (length() >= bytes || has_ended).then_some(has_ended)
        });
        assert_eq!(reached, Some(false), "it has {} of {bytes} bytes", length());
    }

    /// Waits for its end. Whether it was one in order.
    pub(crate) fn succeeds(&mut self) -> bool {
        let status = within(LIMIT, || self.0.try_wait().unwrap());
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
