//! Restrictions of a system: files that a program may not use, and disks that are full.

use std::path::Path;
use std::process::Command;

/// Returns `adit` without root's privileges. Returns `None`, and prints so, where that is
/// impossible.
pub(crate) fn as_a_plain_user() -> Option<Command> {
    let adit = env!("CARGO_BIN_EXE_adit");
    if rustix::process::geteuid().as_raw() != 0 {
        return Some(Command::new(adit));
    }
    let drop = "--bounding-set=-dac_override,-dac_read_search,-fowner";
    let works = Command::new("setpriv").args([drop, "true"]).status().is_ok_and(|s| s.success());
    if !works {
        eprintln!("SKIPPED: files that may not be touched, because root may touch all of them");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args([drop, adit]);
    Some(command)
}

/// Returns `adit` on a full disk: every write to a file fails.
pub(crate) fn on_a_full_disk() -> Command {
    let mut command = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_adit")]);
    command
}

/// A small file system in memory, removed with its owner. It is absent, and the test prints so,
/// where none can be made.
pub(crate) struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    pub(crate) fn at(path: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=700", "adit-test"]).arg(path);
        let mounted = mount.stderr(std::process::Stdio::null()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a disk that fills up, because none can be mounted here");
            return None;
        }
        Some(Self(path))
    }

    /// Fills all the space that is left; removing the file frees it.
    pub(crate) fn fill(&self) -> std::path::PathBuf {
        let filler = self.0.join("filler");
        let full = std::fs::write(&filler, vec![0; 512 * 1024]);
        assert!(full.is_err(), "the disk is larger than it was made");
        filler
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// A file system that never answers, until its owner is dropped: its requests are not read. It is
/// absent, and the test prints so, where none can be made.
#[cfg(target_os = "linux")]
pub(crate) struct HangingDisk<'a> {
    at: &'a Path,
    _requests: std::fs::File,
}

#[cfg(target_os = "linux")]
impl<'a> HangingDisk<'a> {
    pub(crate) fn at(at: &'a Path) -> Option<Self> {
        use std::os::fd::AsRawFd as _;
        let skipped = || eprintln!("SKIPPED: a disk that hangs, because none can be mounted here");
        let requests = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        let Ok(requests) = requests else {
            skipped();
            return None;
        };
        // The command inherits the descriptor.
        rustix::io::fcntl_setfd(&requests, rustix::io::FdFlags::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", requests.as_raw_fd());
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", &options, "adit-test"]).arg(at);
        let mounted = mount.stderr(std::process::Stdio::null()).status();
        rustix::io::fcntl_setfd(&requests, rustix::io::FdFlags::CLOEXEC).unwrap();
        if !mounted.is_ok_and(|status| status.success()) {
            skipped();
            return None;
        }
        Some(Self { at, _requests: requests })
    }
}

#[cfg(target_os = "linux")]
impl Drop for HangingDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.at).status();
    }
}
