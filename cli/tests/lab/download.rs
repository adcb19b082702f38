//! A large file from a web server to `curl`, and whether it arrived complete.
//!
//! It decides how it is served and fetched, and at which pace; it never decides what happens
//! meanwhile.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::common::{Directory, service, within};
use super::namespace::Namespace;
use super::stage::{USUAL_LIMIT, free_port};

/// Longest time that a download takes.
const LIMIT: Duration = Duration::from_secs(600);

/// Blocks per second that a throttle passes on.
const PER_SECOND: u64 = 50;

/// Returns true if the programs that it needs are installed, and prints so if not.
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
    /// Starts it in a namespace, with all its files in the directory.
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
        assert!(within(USUAL_LIMIT, listens).is_some(), "nginx does not listen");
        Self { port, original, _process: process }
    }
}

/// A TCP port that forwards connections to a server, and paces the responses. It holds back
/// everything beyond a number of bytes until it is released: whatever the speed of the machine, no
/// download is over before its test has acted.
pub(crate) struct Throttle {
    pub(crate) port: u16,
    is_released: Arc<AtomicBool>,
}

impl Throttle {
    /// Starts it in a namespace, in front of a server there, at this rate in bytes per second.
    pub(crate) fn start(inside: &Namespace, server: u16, per_second: u64, held_from: u64) -> Self {
        let is_released = Arc::new(AtomicBool::new(false));
        let released = is_released.clone();
        let port = inside.enter(|| {
            let address = (Ipv4Addr::LOCALHOST, server);
            service(move |client| {
                let server = TcpStream::connect(address)?;
                let (mut question, mut to) = (client.try_clone()?, server.try_clone()?);
                std::thread::spawn(move || std::io::copy(&mut question, &mut to));
                pass_on(server, client, (per_second, held_from), &released)
            })
        });
        Self { port: port.port(), is_released }
    }

    /// Releases the rest, at full rate.
    pub(crate) fn release(&self) {
        self.is_released.store(true, Ordering::Relaxed);
    }
}

fn pass_on(
    mut from: TcpStream,
    mut to: TcpStream,
    (per_second, held_from): (u64, u64),
    is_released: &AtomicBool,
) -> std::io::Result<()> {
    let mut block = vec![0; usize::try_from(per_second / PER_SECOND).unwrap_or(usize::MAX).max(1)];
    let mut passed = 0;
    loop {
        let count = from.read(&mut block)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&block[..count])?;
        passed += u64::try_from(count).unwrap_or(u64::MAX);
        let is_held = || !is_released.load(Ordering::Relaxed);
        if is_held() {
            std::thread::sleep(Duration::from_millis(1_000 / PER_SECOND));
        }
        while passed >= held_from && is_held() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Starts to fetch that file.
pub(crate) fn download(inside: &Namespace, from: SocketAddr, to: &Path) -> Process {
    let mut curl = inside.command("curl");
    curl.args(["-sSf", "--no-buffer", "--max-time", &LIMIT.as_secs().to_string()]);
    curl.arg("-o").arg(to).arg(format!("http://{from}/original")).stdin(Stdio::null());
    Process(curl.spawn().unwrap())
}

/// Returns the current length of a file.
pub(crate) fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

/// Returns the output of `sha256sum` for a file.
pub(crate) fn digest(path: &Path) -> Vec<u8> {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(output.status.success());
    output.stdout.split(|&byte| byte == b' ').next().unwrap().to_vec()
}

/// A child that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Waits until a file that it writes has this length.
    ///
    /// # Panics
    /// If it has ended before that.
    pub(crate) fn reaches(&mut self, file: &Path, bytes: u64) {
        let reached = within(LIMIT, || {
            let has_ended = self.0.try_wait().unwrap().is_some();
            (length(file) >= bytes || has_ended).then_some(has_ended)
        });
        assert_eq!(reached, Some(false), "it has {} of {bytes} bytes", length(file));
    }

    /// Waits for its end. Returns true if it succeeded.
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
