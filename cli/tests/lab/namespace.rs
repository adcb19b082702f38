//! A network namespace that is removed with its owner.
//!
//! It decides names, and how code runs inside; it never decides what a namespace contains.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns exec` finds the files of a namespace that stand for those of the host.
const FILES: &str = "/etc/netns";

/// Prefix of the process id in the name of every namespace made here.
const PREFIX: &str = "adit-lab-";

/// A network namespace.
pub(crate) struct Namespace {
    name: String,
}

/// Returns true if namespaces with NATs can be made here, and prints the reason if not.
pub(crate) fn is_possible() -> bool {
    sweep();
    let probe = || {
        run(Command::new("ip").args(["-V"]))?;
        run(Command::new("nft").args(["--version"]))?;
        let namespace = Namespace::make("probe")?;
        run(Command::new("ip").args(["netns", "exec", &namespace.name, "nft", "list", "ruleset"]))
    };
    match probe() {
        Ok(_) => true,
        Err(why) => {
            eprintln!("SKIPPED: the network lab, because {why}");
            false
        }
    }
}

/// Removes what crashed processes left.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.map_while(Result::ok).map(|entry| entry.file_name()) {
        let Some(name) = name.to_str() else { continue };
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = run(Command::new("ip").args(["netns", "del", name]));
        }
    }
}

impl Namespace {
    /// Returns a new namespace with its loopback interface up.
    pub(crate) fn new(role: &str) -> Self {
        Self::make(role).unwrap_or_else(|why| panic!("{why}"))
    }

    fn make(role: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    /// Runs `ip` with these arguments, inside.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split_whitespace());
        run(&mut command).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Adds lines to the hosts file that commands inside see.
    pub(crate) fn hosts(&self, lines: &str) {
        let directory = Path::new(FILES).join(&self.name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("hosts"), format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }

    /// Sets one of the kernel's variables, inside.
    pub(crate) fn set(&self, variable: &str, value: &str) {
        let path = Path::new("/proc/sys").join(variable);
        self.enter(|| std::fs::write(&path, value)).unwrap();
    }

    /// Adds rules to the packet filter, inside.
    pub(crate) fn nft(&self, rules: &str) {
        let mut command = self.command("nft");
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "nft does not take:\n{rules}");
    }

    /// Returns the same as [`Namespace::nft`] for another thread, for the life of the namespace.
    pub(crate) fn another(&self) -> impl Fn(&str) + Send + 'static {
        let name = self.name.clone();
        move |rules| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &name, "nft", rules]);
            run(&mut command).unwrap_or_else(|why| panic!("{why}"));
        }
    }

    /// Returns a command that will run inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Joins two namespaces by a cable; each end has its own name inside.
    pub(crate) fn join(&self, end: &str, other: &Self, other_end: &str) {
        let cable =
            format!("link add name {end} type veth peer name {other_end} netns {}", other.name);
        self.ip(&cable);
        self.raise(end);
        other.raise(other_end);
    }

    /// Brings an end up.
    pub(crate) fn raise(&self, end: &str) {
        // Another router may get the address of a removed one a moment later.
        self.set(&format!("net/ipv4/neigh/{end}/locktime"), "0");
        self.ip(&format!("link set {end} up"));
    }

    /// Runs a closure inside: sockets that it makes stay in the namespace, also in other threads.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
        let _ = std::fs::remove_dir_all(Path::new(FILES).join(&self.name));
    }
}

/// Runs a command to its end. Returns its output if it failed.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
